package relay

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/verdict"
)

func selfSigned(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	gatewaytest.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	gatewaytest.Must(t, err)
	leaf, err := x509.ParseCertificate(der)
	gatewaytest.Must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// chain is a self-signed certificate with its key, in PEM.
func chain(t *testing.T) string {
	t.Helper()
	cert := selfSigned(t, "mx.far.example")
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	gatewaytest.Must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Leaf.Raw}))
}

// A message goes once per domain to the server of each, in TLS where there is some, whatever its
// certificate, and verifies there by what Records has.
func TestDelivery(t *testing.T) {
	t.Parallel()
	config, _ := certificate(t, "other.name")
	far := new(sink).serve(t, "127.0.0.1", "", config)
	near := new(sink).serve(t, "127.0.0.2", far.port, nil)
	r := start(t, far.port, nil, "far.example. MX 10 mx.far.example.", "mx.far.example. A 127.0.0.1", "near.example. A 127.0.0.2")
	r.send(t, "one", "x@far.example", "y@FAR.example", "z@near.example")
	got, also := far.wait(t, 1)[0], near.wait(t, 1)[0]
	r.waitEmpty(t)
	if !got.tls || also.tls || got.helo != us {
		t.Errorf("TLS %v and %v, helo %q", got.tls, also.tls, got.helo)
	}
	if diff := cmp.Diff([][]string{{"x@far.example", "y@FAR.example"}, {"z@near.example"}}, [][]string{got.to, also.to}); diff != "" {
		t.Error(diff)
	}
	if got.from != "app@blog."+us || !strings.HasSuffix(got.text, fmt.Sprintf(text, "one")) || got.text != also.text {
		t.Errorf("from %q:\n%s", got.from, got.text)
	}
	if v := r.judge(t, got.text, "192.0.2.1"); v.SPF != verdict.Pass || v.DMARC != verdict.Pass || v.Aligned != "blog."+us {
		t.Errorf("from here: %+v", v)
	}
	if v := r.judge(t, got.text, "192.0.2.2"); v.SPF != verdict.Fail || v.DMARC != verdict.Pass || len(v.DKIM) != 2 || v.DKIM[0].Result != verdict.Pass || v.DKIM[1].Result != verdict.Pass || v.Aligned != us {
		t.Errorf("passed on by another: %+v", v)
	}
}

// judge checks a message as a receiver does that finds the host's records.
// Mail from a domain of a VM's own passes DMARC there, by the records of that domain and the host's keys.
func TestOwnDomain(t *testing.T) {
	const own = "own.example"
	far := new(sink).serve(t, "127.0.0.2", "", nil)
	r := start(t, far.port, nil, "far.example. MX 10 mx.far.example.", "mx.far.example. A 127.0.0.2")
	body := strings.ReplaceAll(fmt.Sprintf(text, "own"), "blog."+us, own)
	_, err := r.Send(t.Context(), Message{VM: r.blog, From: "app@" + own, To: []string{"x@far.example"}, Body: strings.NewReader(body), Signer: own})
	gatewaytest.Must(t, err)
	got := far.wait(t, 1)[0].text
	records := []string{us + ". A 192.0.2.1"}
	for _, rec := range append(r.Records(), r.DomainRecords(own)...) {
		records = append(records, rec.Name+" "+rec.Type+" "+rec.Value)
	}
	r.zone.Set(t, records...)
	for remote, spf := range map[string]verdict.Result{"192.0.2.1": verdict.Pass, "192.0.2.2": verdict.SoftFail} {
		v := judgeFrom(t, r.zone.Addr, own, got, remote)
		if v.SPF != spf || len(v.DKIM) != 2 || v.DKIM[0].Result != verdict.Pass || v.DKIM[1].Result != verdict.Pass || v.DKIM[0].Domain != own || v.DMARC != verdict.Pass || v.Aligned != own {
			t.Errorf("from %s: %+v\n%s", remote, v, got)
		}
	}
}

func (r *rig) judge(t *testing.T, message, remote string) verdict.Verdict {
	t.Helper()
	records := []string{us + ". A 192.0.2.1", "*." + us + ". A 192.0.2.1"}
	for _, rec := range r.Records() {
		records = append(records, rec.Name+" "+rec.Type+" "+rec.Value)
	}
	r.zone.Set(t, records...)
	return judge(t, r.zone.Addr, message, remote)
}

// The keys are made once, and nobody else reads them.
func TestKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := loadKeys(dir)
	gatewaytest.Must(t, err)
	again, err := loadKeys(dir)
	gatewaytest.Must(t, err)
	for i, k := range first {
		kind, data := k.public()
		if otherKind, other := again[i].public(); kind != otherKind || data != other {
			t.Errorf("%s: another key", k.selector)
		}
	}
	for _, name := range []string{"dkim-rsa.pem", "dkim-ed25519.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		gatewaytest.Must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s: %v", name, info.Mode())
		}
	}
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "dkim-rsa.pem"), []byte("x"), 0o600))
	if _, err := loadKeys(dir); err == nil || !strings.Contains(err.Error(), "dkim-rsa.pem") {
		t.Errorf("a damaged key: %v", err)
	}
}

// What is wrong with a message is an error for its sender, and nothing of it is kept.
func TestSendRefuses(t *testing.T) {
	t.Parallel()
	r := start(t, "1", func(c *Config) {
		c.Limits.Recipients, c.Limits.Waiting, c.Limits.MessageBytes = 4, 6, 1<<20
		c.Times.RetryMin = time.Hour
	}, "far.example. A 127.0.0.1")
	plain := fmt.Sprintf(text, "x")
	for name, m := range map[string]Message{
		"no VM":              {To: []string{"x@far.example"}},
		"nobody":             {VM: r.blog},
		"too many":           {VM: r.blog, To: strings.Fields(strings.Repeat("x@far.example ", 5))},
		"here":               {VM: r.blog, To: []string{"x@blog." + us}},
		"the domain":         {VM: r.blog, To: []string{"postmaster@" + strings.ToUpper(us)}},
		"no domain":          {VM: r.blog, To: []string{"x"}},
		"a command":          {VM: r.blog, To: []string{"x@far.example>\r\nRCPT TO:<y@far.example"}},
		"a literal":          {VM: r.blog, To: []string{"x@[127.0.0.1]"}},
		"UTF-8":              {VM: r.blog, To: []string{"é@far.example"}},
		"long":               {VM: r.blog, To: []string{strings.Repeat("x", 300) + "@far.example"}},
		"sender":             {VM: r.blog, From: "x\n@y", To: []string{"x@far.example"}},
		"no header":          {VM: r.blog, To: []string{"x@far.example"}, Body: strings.NewReader("no header at all")},
		"large":              {VM: r.blog, To: []string{"x@far.example"}, Body: strings.NewReader(plain + strings.Repeat("12345678\r\n", 110_000))},
		"large header":       {VM: r.blog, To: []string{"x@far.example"}, Body: strings.NewReader("From: a@b.example\r\n" + strings.Repeat("X: y\r\n", 20_000) + "\r\nbody")},
		"white space":        {VM: r.blog, To: []string{"x@far.example"}, Body: strings.NewReader(plain + strings.Repeat("\r\n", 40_000) + "x")},
		"white space, split": {VM: r.blog, To: []string{"x@far.example"}, Body: bytes.NewBufferString(plain + strings.Repeat(" ", 70_000))},
	} {
		if m.Body == nil {
			m.Body = strings.NewReader(plain)
		}
		if _, err := r.Send(t.Context(), m); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.send(t, "1", "a@far.example", "b@far.example", "c@far.example", "d@far.example")
	if _, err := r.Send(t.Context(), Message{VM: r.blog, To: []string{"e@far.example", "f@far.example", "g@far.example"}, Body: strings.NewReader(plain)}); gateway.KindOf(err) != gateway.KindNoSpace {
		t.Errorf("a full queue: %v", err)
	}
	if n := r.Waiting(); n != 4 {
		t.Errorf("%d wait", n)
	}
}

// Each recipient gets what its server decides: delivered, tried again, or reported, once.
func TestEachRecipient(t *testing.T) {
	t.Parallel()
	var slow atomic.Int32
	far := (&sink{rcpt: func(to string) error {
		switch {
		case strings.HasPrefix(to, "gone"):
			return reply(550, 5, 1, 1, "no such user")
		case strings.HasPrefix(to, "slow") && slow.Add(1) < 4:
			return reply(451, 4, 7, 1, "greylisted")
		}
		return nil
	}}).serve(t, "127.0.0.1", "", nil)
	r := start(t, far.port, nil, "far.example. MX 0 far.example.", "far.example. A 127.0.0.1")
	r.send(t, "one", "x@far.example", "gone@far.example", "slow@far.example")
	all := far.wait(t, 2)
	r.waitEmpty(t)
	if diff := cmp.Diff([][]string{{"x@far.example"}, {"slow@far.example"}}, [][]string{all[0].to, all[1].to}); diff != "" {
		t.Error(diff)
	}
	report := r.reports(t, 1)[0]
	for _, want := range []string{
		"Return-Path: <>\r\nDelivered-To: app@blog.lodge.example\r\n", "Final-Recipient: rfc822; gone@far.example\r\nAction: failed\r\nStatus: 5.1.1\r\n",
		"Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n", "Subject: hello\r\n", "Content-Type: multipart/report; report-type=delivery-status;",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("no %q in\n%s", want, report)
		}
	}
	if strings.Contains(report, "body of one") || strings.Contains(report, "slow@") || strings.Contains(report, "<x@") {
		t.Errorf("too much in\n%s", report)
	}
}

// After a while the sender gets a note of a delay, once, and in the end a report that the mail was given up.
// Nobody gets a report on a report.
func TestDelayAndGivingUp(t *testing.T) {
	t.Parallel()
	var from atomic.Int32
	far := (&sink{data: func(string) error { from.Add(1); return reply(452, 4, 3, 1, "no room") }}).serve(t, "127.0.0.1", "", nil)
	r := start(t, far.port, func(c *Config) { c.Times.Delayed, c.Times.GiveUp = 100*time.Millisecond, 10*time.Second }, "far.example. A 127.0.0.1")
	r.send(t, "one", "x@far.example")
	_, err := r.Send(t.Context(), Message{VM: r.blog, To: []string{"y@far.example"}, Body: strings.NewReader(fmt.Sprintf(text, "two"))})
	gatewaytest.Must(t, err)
	r.waitEmpty(t)
	all := r.reports(t, 2)
	if !strings.Contains(all[0], "Subject: Mail is delayed\r\n") || !strings.Contains(all[0], "Action: delayed\r\nStatus: 4.3.1\r\n") || !strings.Contains(all[0], "Will-Retry-Until: ") {
		t.Errorf("first:\n%s", all[0])
	}
	if !strings.Contains(all[1], "Subject: Mail was not delivered\r\n") || !strings.Contains(all[1], "Action: failed\r\nStatus: 5.4.7\r\n") || !strings.Contains(all[1], "452 4.3.1 no room") {
		t.Errorf("second:\n%s", all[1])
	}
	if r.Failed() != 2 || r.log.Count("report not made") == 0 {
		t.Errorf("%d failed", r.Failed())
	}
}

// A queue that is opened again goes on where it was, and sends no second note of a delay.
func TestRestart(t *testing.T) {
	t.Parallel()
	port := portOf(listen(t, "127.0.0.49", "")) // nobody answers there
	dir := t.TempDir()
	slow := func(c *Config) { c.Dir, c.Times.Delayed = dir, 50*time.Millisecond }
	r := start(t, port, slow, "far.example. A 127.0.0.41", "near.example. A 127.0.0.42") // no other test listens there
	r.send(t, "one", "x@far.example", "y@far.example", "z@near.example")
	r.reports(t, 2) // one for each destination
	r.stop()
	r.run(t, config(r, dir, port, slow))
	gatewaytest.WaitFor(t, "three that wait", func() bool { return r.Waiting() == 3 })
	far := new(sink).serve(t, "127.0.0.41", port, nil)
	near := new(sink).serve(t, "127.0.0.42", port, nil)
	if got := far.wait(t, 1)[0]; len(got.to) != 2 {
		t.Errorf("%q", got.to)
	}
	near.wait(t, 1)
	r.waitEmpty(t)
	r.reports(t, 2)
	r.stop()
	r.run(t, config(r, dir, port, slow))
	gatewaytest.WaitFor(t, "the queue to be read", r.allRead)
	if n := r.Waiting(); n != 0 {
		t.Errorf("%d wait after all was sent", n)
	}
}

// Many messages to one domain share connections, and a removed VM has none left.
func TestConnectionsAndRemoval(t *testing.T) {
	t.Parallel()
	far := new(sink).serve(t, "127.0.0.1", "", nil)
	r := start(t, far.port, nil, "far.example. A 127.0.0.1")
	for i := range 60 {
		r.send(t, fmt.Sprint(i), "x@far.example")
	}
	far.wait(t, 60)
	r.waitEmpty(t)
	if far.sessions > 30 {
		t.Errorf("%d connections", far.sessions)
	}
	r.zone.Set(t)
	r.zone.Fail(2)
	r.send(t, "last", "x@unknown.example")
	gatewaytest.Must(t, r.Remove(r.blog.ID))
	if _, err := r.Send(t.Context(), Message{VM: r.blog, To: []string{"x@far.example"}, Body: strings.NewReader(fmt.Sprintf(text, "x"))}); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("after its removal: %v", err)
	}
}

// A smarthost gets all, in TLS, after a login. What it does not accept over TLS or the login fails no mail.
func TestSmarthost(t *testing.T) {
	t.Parallel()
	config, roots := certificate(t, "localhost")
	smart := (&sink{login: "me:secret"}).serve(t, "127.0.0.1", "", config)
	host := Smarthost{Addr: "localhost:" + smart.port, User: "me", Password: "secret", Roots: roots}
	for name, change := range map[string]func(*Smarthost){
		"no trust": func(h *Smarthost) { h.Roots = x509.NewCertPool() }, "wrong password": func(h *Smarthost) { h.Password = "x" },
	} {
		other := host
		change(&other)
		r := start(t, "1", func(c *Config) { c.Smarthost = &other })
		r.send(t, name, "x@far.example")
		gatewaytest.WaitFor(t, "a second attempt", func() bool { return r.log.Count("message delayed") > 1 })
		if r.Waiting() != 1 || len(smart.all()) != 0 || strings.Contains(r.log.String(), "secret") {
			t.Errorf("%s: %d wait", name, r.Waiting())
		}
		r.stop()
	}
	r := start(t, "1", func(c *Config) { c.Smarthost = &host })
	r.send(t, "one", "x@far.example", "y@near.example")
	if got := smart.wait(t, 1)[0]; !got.tls || len(got.to) != 2 {
		t.Errorf("%+v", got)
	}
	plain := new(sink).serve(t, "127.0.0.2", smart.port, nil)
	open := Smarthost{Addr: "127.0.0.2:" + plain.port}
	r = start(t, "1", func(c *Config) { c.Smarthost = &open })
	r.send(t, "one", "x@far.example")
	gatewaytest.WaitFor(t, "an attempt", func() bool { return r.log.Count("does not offer STARTTLS") > 0 })
	if len(plain.all()) != 0 {
		t.Error("mail went out in the clear")
	}
}
