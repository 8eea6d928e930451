package mail

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"lodge/gateway"
	"lodge/gateway/domains/domainstest"
	"lodge/gateway/gatewaytest"
	"lodge/mail/verdict"
)

// The addresses of a stranger whom SPF allows to send for example.com, and of one whom it does not.
const (
	honest = "192.0.2.1"
	forger = "192.0.2.66"
)

// sender is the zone of example.com, and its key.
func sender(tb testing.TB) (*domainstest.Server, ed25519.PrivateKey) {
	tb.Helper()
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	return domainstest.Start(tb,
		`example.com. TXT "v=spf1 ip4:`+honest+` -all"`, `_dmarc.example.com. TXT "v=DMARC1; p=reject"`,
		`s._domainkey.example.com. TXT "v=DKIM1; k=ed25519; p=`+base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))+`"`,
	), key
}

// checking makes a server check mail, by a zone.
func checking(zone *domainstest.Server) func(*Config) {
	return func(c *Config) { c.Verdicts = verdict.New(verdict.NewResolver("", zone.Addr)) }
}

// helloFrom is hello from another address of this host.
func helloFrom(tb testing.TB, source, addr string) *talk {
	tb.Helper()
	ip := net.ParseIP(source)
	lo, err := netlink.LinkByName("lo")
	gatewaytest.Must(tb, err)
	gatewaytest.Must(tb, netlink.AddrReplace(lo, &netlink.Addr{IPNet: netlink.NewIPNet(ip)}))
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}
	conn, err := dialer.DialContext(tb.Context(), "tcp", addr)
	gatewaytest.Must(tb, err)
	tb.Cleanup(func() { conn.Close() })
	gatewaytest.Must(tb, conn.SetDeadline(time.Now().Add(time.Minute)))
	c := &talk{tb, conn, bufio.NewReader(conn)}
	c.expect("220")
	c.ask("EHLO client.example", "250")
	return c
}

// mail sends a message and expects a reply to it.
func (c *talk) mail(from, text, reply string, to ...gateway.Identity) {
	c.t.Helper()
	c.ask("MAIL FROM:<"+from+">", "250")
	for _, vm := range to {
		c.ask("RCPT TO:<x@"+vm.Name+"."+domain+">", "250")
	}
	c.ask("DATA", "354")
	c.send(text)
	c.ask(".", reply)
}

// results takes the newest message of a VM apart: what is in its Authentication-Results, and what came in.
func (f *fixture) results(t *testing.T, vm gateway.Identity) (results, message string) {
	t.Helper()
	list := f.list(t, vm)
	if len(list) == 0 {
		t.Fatal("no message")
	}
	text := string(f.read(t, vm, list[0].QueueID))
	_, text, _ = strings.Cut(text, "\r\nAuthentication-Results: "+domain+";\r\n\t")
	results, text, _ = strings.Cut(text, "\r\nReceived: ")
	_, text, _ = strings.Cut(text, "\r\n\tfor <")
	_, message, ok := strings.Cut(text, "\r\n")
	if !ok {
		t.Fatalf("unexpected %q", text)
	}
	return strings.ReplaceAll(results, "\r\n\t", " "), message
}

// Mail of strangers gets a verdict, which no header of theirs can forge; it is kept byte for byte else.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	zone, key := sender(t)
	f := start(t, t.TempDir(), checking(zone))
	vm := f.add(t, "blog")
	const plain = "From: A <a@example.com>\r\nSubject: x\r\n\r\nAuthentication-Results: " + domain + "; body\r\n.. \r\n\xff\r\n"
	signed := new(strings.Builder)
	const forged = "Authentication-Results: " + domain + "; dmarc=pass\r\nDelivered-To: me\r\n"
	gatewaytest.Must(t, dkim.Sign(signed, strings.NewReader(forged+strings.ReplaceAll(plain, "\r\n..", "\r\n.")), &dkim.SignOptions{Domain: "example.com", Selector: "s", Signer: key}))
	stored := strings.ReplaceAll(plain, "\r\n..", "\r\n.")
	signature := signed.String()[:strings.Index(signed.String(), forged)]
	for name, tt := range map[string]struct{ source, from, text, results, message string }{
		"honest": {
			honest, "b@example.com", forged + plain,
			"spf=pass smtp.mailfrom=example.com; dkim=none; dmarc=pass header.from=example.com", stored,
		},
		"signed, by another server": {
			forger, "b@example.net", signature + forged + plain,
			"spf=none smtp.mailfrom=example.net; dkim=pass header.d=example.com; dmarc=pass header.from=example.com", signature + stored,
		},
		"forged": {
			forger, "b@example.com", forged + "X-Lodge-Vm: shop\r\nReturn-Path: <x>\r\n" + plain,
			`spf=fail smtp.mailfrom=example.com; dkim=none; dmarc=fail reason="policy reject" header.from=example.com`, stored,
		},
		"changed on the way": {
			forger, "b@example.net", signature + forged + strings.Replace(plain, "; body", "; BODY", 1),
			`spf=none smtp.mailfrom=example.net; dkim=fail reason="body hash did not verify" header.d=example.com; dmarc=fail reason="policy reject" header.from=example.com`,
			signature + strings.Replace(stored, "; body", "; BODY", 1),
		},
		"a program of the host": {
			"127.0.0.1", "b@example.com", "Subject: cron\r\n\r\nx\r\n", "dkim=none; dmarc=none", "Subject: cron\r\n\r\nx\r\n",
		},
	} {
		helloFrom(t, tt.source, f.addr).mail(tt.from, tt.text, "250", vm)
		if results, message := f.results(t, vm); results != tt.results || message != tt.message {
			t.Errorf("%s:\n got %q\nwant %q\nin front of %q", name, results, tt.results, message)
		}
	}
	c := helloFrom(t, honest, f.addr)
	for _, bad := range []string{"From: a@example.com\r\nFrom: b@example.com\r\n\r\n", "Subject: x\r\n\r\n", "From: root\r\n\r\n", "From: a@example.com, b@example.net\r\n\r\n"} {
		c.mail("b@example.com", bad, "554 5.6.0", vm)
	}
	c.mail("b@example.com", strings.Repeat("Return-Path: <x>\r\n", 5000)+plain, "554 5.6.0", vm)
	leftNothing(t, filepath.Join(f.dir, "stage"))
}

// strict adds a VM that refuses what DMARC rejects.
func (f *fixture) strict(t *testing.T, name string) gateway.Identity {
	t.Helper()
	vm := f.add(t, name)
	_, err := f.directory.Update(t.Context(), vm.ID, func(m *gateway.VM) error {
		m.Mail.RefuseRejected = true
		return nil
	})
	gatewaytest.Must(t, err)
	return vm
}

// What a domain's policy rejects is refused if all recipients are set so; never after a temporary error.
func TestRefuseRejected(t *testing.T) {
	t.Parallel()
	zone, _ := sender(t)
	f := start(t, t.TempDir(), checking(zone))
	bank, blog := f.strict(t, "bank"), f.add(t, "blog")
	const text = "From: a@example.com\r\n\r\nx\r\n"
	c := helloFrom(t, forger, f.addr)
	c.mail("b@example.com", text, "550 5.7.1 Refused by the DMARC policy of example.com", bank)
	if n := len(f.list(t, bank)); n > 0 {
		t.Errorf("%d messages were kept", n)
	}
	leftNothing(t, filepath.Join(f.dir, "stage"))
	for name, to := range map[string][]gateway.Identity{"does not want it": {blog}, "one of two": {bank, blog}} {
		c.mail("b@example.com", text, "250", to...)
		for _, vm := range to {
			if results, _ := f.results(t, vm); !strings.Contains(results, `dmarc=fail reason="policy reject"`) {
				t.Errorf("%s: %s", name, results)
			}
		}
	}
	helloFrom(t, honest, f.addr).mail("b@example.com", text, "250", bank)
	if results, _ := f.results(t, bank); !strings.Contains(results, "dmarc=pass") {
		t.Error(results)
	}
	broken, _ := sender(t)
	broken.Fail(dns.RcodeServerFailure)
	g := start(t, t.TempDir(), checking(broken))
	vm := g.strict(t, "blog")
	helloFrom(t, forger, g.addr).mail("b@example.com", text, "250", vm)
	if results, _ := g.results(t, vm); results != "spf=temperror smtp.mailfrom=example.com; dkim=none; dmarc=temperror header.from=example.com" {
		t.Error(results)
	}
}

// Without verdicts forged headers and two From are refused all the same.
func TestNoVerdicts(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	c := helloFrom(t, honest, f.addr)
	c.mail("b@example.com", "From: a@b.c\r\nfrom: d@e.f\r\n\r\n", "554 5.6.0", vm)
	c.mail("b@example.com", "Authentication-Results: "+domain+"; dmarc=pass\r\nSubject: x\r\n\r\n", "250", vm)
	if got := string(f.read(t, vm, f.list(t, vm)[0].QueueID)); strings.Contains(got, "Authentication-Results") || !strings.HasSuffix(got, "\r\nSubject: x\r\n\r\n") {
		t.Errorf("got %q", got)
	}
}
