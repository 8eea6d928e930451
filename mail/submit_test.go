package mail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
	"lodge/mail/relay"
)

const owner = "ann@example.org"

// outbox is a Relay that keeps what it is given.
type outbox struct {
	mu   sync.Mutex
	err  error // of the next Send
	late error // of the next Send, once the message is Ready
	sent []relayed
}

type relayed struct {
	relay.Message
	text string
}

func (o *outbox) Send(_ context.Context, m relay.Message) (string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text, err := io.ReadAll(m.Body)
	if err = errors.Join(err, o.err); err != nil {
		o.err = nil
		return "", err
	}
	if err := m.Ready(); err != nil {
		return "", err
	}
	if err, o.late = o.late, nil; err != nil {
		return "", err
	}
	o.sent = append(o.sent, relayed{m, string(text)})
	return fmt.Sprintf("out-%d", len(o.sent)), nil
}

func (o *outbox) last(tb testing.TB) relayed {
	tb.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.sent) == 0 {
		tb.Fatal("nothing was relayed")
	}
	return o.sent[len(o.sent)-1]
}

// sending is a server whose VMs may write to the people of a book, and by a relay.
func sending(tb testing.TB, change func(*Config)) (*fixture, *people.Book, *outbox) {
	tb.Helper()
	db, err := store.Open(tb.Context(), filepath.Join(tb.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(tb, err)
	tb.Cleanup(func() { _ = db.Close() }) // the directory goes with it
	book, err := people.Open(tb.Context(), db.Shared(), owner)
	gatewaytest.Must(tb, err)
	out := new(outbox)
	f := start(tb, tb.TempDir(), func(c *Config) {
		c.People, c.relay = book, out
		if change != nil {
			change(c)
		}
	})
	return f, book, out
}

// tap serves a VM's mail, and returns where.
func (f *fixture) tap(tb testing.TB, vm gateway.Identity) (addr string) {
	tb.Helper()
	l := listen(tb)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := f.ServeSubmission(gatewaytest.Listener(l, vm)); err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

func (f *fixture) set(tb testing.TB, vm gateway.Identity, change func(*gateway.VM)) {
	tb.Helper()
	_, err := f.directory.Update(tb.Context(), vm.ID, func(m *gateway.VM) error { change(m); return nil })
	gatewaytest.Must(tb, err)
}

// A message from VM to VM is completed, has no Bcc, and has the sender's name that nobody can forge.
func TestVMWritesToVM(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, nil)
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	woken := f.list(t, shop)
	c, greeting := hello(t, f.tap(t, blog))
	if strings.Contains(greeting, "AUTH") || strings.Contains(greeting, "STARTTLS") {
		t.Errorf("offered: %q", greeting)
	}
	c.ask("MAIL FROM:<cron@blog.lodge.localhost>", "250")
	c.ask("RCPT TO:<sales@shop.lodge.localhost>", "250")
	c.ask("DATA", "354")
	c.ask("To: sales@shop.lodge.localhost\r\nBcc: eve@evil.example,\r\n bob@evil.example\r\nX-Lodge-Vm: bank\r\nSubject: =?utf-8?q?h=C3=A9?=\r\nReturn-Path: <x@y.z>\r\n\r\nBcc: stays\r\n.", "250 2.0.0 OK: queued as ")
	if len(woken) != 0 || len(out.sent) != 0 {
		t.Error("something left the host")
	}
	m := f.list(t, shop)[0]
	want := regexp.MustCompile(`^Return-Path: <cron@blog\.lodge\.localhost>\r
Delivered-To: sales@shop\.lodge\.localhost\r
X-Lodge-Vm: blog\r
Received: from client\.example \(blog\.lodge\.localhost\)\r
	by lodge\.localhost with ESMTP\r
	id ` + m.QueueID + ` for <sales@shop\.lodge\.localhost>; [^\r]+\r
To: sales@shop\.lodge\.localhost\r
Subject: =\?utf-8\?q\?h=C3=A9\?=\r
From: <cron@blog\.lodge\.localhost>\r
Date: [^\r]+\r
Message-ID: <[^\r<>@]+@blog\.lodge\.localhost>\r
\r
Bcc: stays\r
$`)
	if got := string(f.read(t, shop, m.QueueID)); !want.MatchString(got) {
		t.Errorf("got %q", got)
	}
	if m.From != "cron@blog.lodge.localhost" || m.Subject != "hé" {
		t.Errorf("%+v", m)
	}
}

// Envelope and authors must be the VM's own, by any of its names; programs without these names are
// helped. Each row is an envelope's sender, a header, and the reply.
func TestWhoSends(t *testing.T) {
	t.Parallel()
	f, _, _ := sending(t, nil)
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	f.set(t, blog, func(m *gateway.VM) { m.Mail.Aliases = []string{"news", "info@"} })
	f.set(t, shop, func(m *gateway.VM) { m.Mail.Aliases = []string{"store", "sales@"} })
	const own = "anything@blog.lodge.localhost, anything@news.lodge.localhost, info@lodge.localhost"
	c, _ := hello(t, f.tap(t, blog))
	for _, row := range []struct{ from, header, reply, stored string }{
		{"a@blog.lodge.localhost", "From: A <b@blog.lodge.localhost>", "250", "From: A <b@blog.lodge.localhost>\r\n"},
		{"a@BLOG.Lodge.Localhost.", "From: b@NEWS.lodge.localhost", "250", "From: b@NEWS.lodge.localhost\r\n"},
		{"info@lodge.localhost", "From: Info+june@lodge.localhost", "250", ""},
		{"root@localhost", "From: root (Cron Daemon)", "250", "From: \"Cron Daemon\" <root@blog.lodge.localhost>\r\n"},
		{"root@blog", "From: root", "250", "From: <root@blog.lodge.localhost>\r\n"},
		{"root@blog.lodge.internal", "From: \"C\" <root>", "250", "From: \"C\" <root@blog.lodge.localhost>\r\n"},
		{"www@localhost.localdomain", "From: Web <www@localhost>", "250", "From: \"Web\" <www@blog.lodge.localhost>\r\n"},
		{"", "From: MAILER-DAEMON@blog.lodge.localhost", "250", ""},
		{"", "Subject: no author", "250", "From: <MAILER-DAEMON@blog.lodge.localhost>\r\n"},
		{"a@blog.lodge.localhost", "From: a@blog.lodge.localhost, b@news.lodge.localhost", "250", ""},
		{"a@blog.lodge.localhost", "From:\r\nSubject: empty", "250", "From: <a@blog.lodge.localhost>\r\n"},
		{"a@blog.lodge.localhost", "Reply-To: anyone@bank.example", "250", ""},
		{"a@blog.lodge.localhost", "From: \"a@bank.example\" <a@blog.lodge.localhost>", "250", ""},

		{"ceo@bank.example", "", "550 5.7.1 Sender address rejected: blog sends from " + own, ""},
		{"a@shop.lodge.localhost", "", "550 5.7.1 Sender", ""},
		{"a@store.lodge.localhost", "", "550 5.7.1 Sender", ""},
		{"sales@lodge.localhost", "", "550 5.7.1 Sender", ""},
		{"postmaster@lodge.localhost", "", "550 5.7.1 Sender", ""},
		{"a@lodge.localhost", "", "550 5.7.1 Sender", ""},
		{"a@x.blog.lodge.localhost", "", "550 5.7.1 Sender", ""},
		{"a@shop", "", "550 5.7.1 Sender", ""},
		{`"a@blog.lodge.localhost"@bank.example`, "", "550 5.7.1 Sender", ""},

		{"a@blog.lodge.localhost", "From: ceo@bank.example", "550 5.7.1 The address in From is not the VM's: blog sends from " + own, ""},
		{"a@blog.lodge.localhost", "From: a@blog.lodge.localhost, ceo@bank.example", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "From: team: a@blog.lodge.localhost, ceo@bank.example;", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "From: a@shop.lodge.localhost", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "From: sales@lodge.localhost", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "From: \"a@blog.lodge.localhost\" <ceo@bank.example>", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "FROM : ceo@bank.example", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "From: A\r\n <ceo@bank.example>", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "Sender: ceo@bank.example\r\nFrom: a@blog.lodge.localhost", "550 5.7.1 The address in Sender", ""},
		{"a@blog.lodge.localhost", "Resent-From: ceo@bank.example\r\nFrom: a@blog.lodge.localhost", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "From: a@blog.lodge.localhost\r\nFrom: ceo@bank.example", "550 5.7.1 The", ""},
		{"a@blog.lodge.localhost", "From: a@blog.lodge.localhost\r\nfrom: a@blog.lodge.localhost", "554 5.6.0", ""},
		{"a@blog.lodge.localhost", "From: ceo@bank.example <a@blog.lodge.localhost>", "554 5.6.0 The From header cannot be read", ""},
		{"a@blog.lodge.localhost", "From: team:;", "554 5.6.0", ""},
		{"a@blog.lodge.localhost", "From: a@blog.lodge.localhost\r\n \r\nTo: x", "554 5.6.0", ""},
		{"a@blog.lodge.localhost", "From: a@blog.lodge.localhost\x00ceo@bank.example", "554 5.6.0", ""},
		{"a@blog.lodge.localhost", "Subject: " + strings.Repeat(strings.Repeat("x", 1000)+"\r\n ", 300), "554 5.6.0", ""},
		{"a@blog.lodge.localhost", strings.Repeat("Received: x\r\n", 51), "554 5.4.6", ""},
	} {
		c.send("RSET\r\nMAIL FROM:<" + row.from + ">\r\n")
		c.expect("250")
		if row.header == "" {
			if got, _ := c.answer(); !strings.HasPrefix(got, row.reply) || !strings.HasSuffix(got, "\r\n") || len(got) > 512 {
				t.Errorf("MAIL FROM:<%s>: %q, want %q", row.from, got, row.reply)
			}
			continue
		}
		c.expect("250")
		c.ask("RCPT TO:<x@shop.lodge.localhost>", "250")
		c.ask("DATA", "354")
		c.send(row.header + "\r\n\r\nx\r\n.\r\n")
		got, _ := c.answer()
		if !strings.HasPrefix(got, row.reply) {
			t.Errorf("<%s> with %.200q: %q, want %q", row.from, row.header, got, row.reply)
			continue
		}
		if row.stored != "" {
			if text := string(f.read(t, shop, f.list(t, shop)[0].QueueID)); strings.Count(text, "\r\n"+row.stored) != 1 || strings.Count(text, "From:") != 1 {
				t.Errorf("<%s> with %q: stored %q", row.from, row.header, text)
			}
		}
		if row.reply[0] == '5' { // the session counts refusals
			c, _ = hello(t, f.tap(t, blog))
		}
	}
	leftNothing(t, filepath.Join(f.dir, "stage"))
}

// Without a tap there is nobody; and a VM that is being removed sends nothing.
func TestNobodySends(t *testing.T) {
	t.Parallel()
	f, _, _ := sending(t, nil)
	blog := f.add(t, "blog")
	c, _ := hello(t, f.tap(t, gateway.Identity{}))
	c.ask("MAIL FROM:<a@blog.lodge.localhost>", "550 5.7.1 Only VMs of this host")
	c, _ = hello(t, f.tap(t, blog))
	f.set(t, blog, func(m *gateway.VM) { m.Desired = gateway.Removed })
	c.ask("MAIL FROM:<a@blog.lodge.localhost>", "550 5.7.1 Only VMs of this host")
}

// reply is that to a recipient.
func (f *fixture) reply(tb testing.TB, addr, from, to string) string {
	tb.Helper()
	c, _ := hello(tb, addr)
	c.ask("MAIL FROM:<"+from+">", "250")
	c.send("RCPT TO:<" + to + ">\r\n")
	got, err := c.answer()
	gatewaytest.Must(tb, err)
	return got
}

// To whom a VM may write, by its setting and by what people may do with it.
func TestToWhom(t *testing.T) {
	t.Parallel()
	f, book, _ := sending(t, nil)
	blog, shop, off := f.add(t, "blog"), f.add(t, "shop"), f.add(t, "off")
	f.set(t, shop, func(m *gateway.VM) { m.Mail.AllowFrom = []string{"friend@blog.lodge.localhost"} })
	f.set(t, off, func(m *gateway.VM) { m.Mail.Off = true })
	granted, _, err := book.Add(t.Context(), "granted@example.net", people.Guest)
	gatewaytest.Must(t, err)
	shared, _, err := book.Add(t.Context(), "shared@example.net", people.Guest)
	gatewaytest.Must(t, err)
	_, _, err = book.Add(t.Context(), "other@example.net", people.Member)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, f.contacts.Wrote(blog.ID, "wrote@example.com", time.Now()))
	gatewaytest.Must(t, f.contacts.Wrote(shop.ID, "shopper@example.com", time.Now()))
	addr := f.tap(t, blog)
	const from = "friend@blog.lodge.localhost"
	for _, row := range []struct {
		setting        gateway.SendTo
		from, to, want string
	}{
		{"", from, owner, "250"},
		{"", from, "ANN@Example.ORG", "250"},
		{"", from, "granted@example.net", "250"},
		{"", from, "shared@example.net", "250"},
		{"", from, "wrote@example.com", "250"},
		{"", "", "wrote@example.com", "250"},
		{"", from, "ann+x@example.org", "550 5.7.1 blog may write to its people"},
		{"", from, "other@example.net", "550 5.7.1 blog may write to its people"},
		{"", from, "shopper@example.com", "550 5.7.1 blog may write to its people"},
		{"", from, "eve@evil.example", "550 5.7.1 blog may write to its people"},
		{"", from, "x@[192.0.2.1]", "550 5.7.1 blog may write to its people"},
		{"", from, `"ann@example.org"@evil.example`, "550 5.7.1"},
		{"", from, "root@localhost", "250"},
		{"", from, "postmaster@lodge.localhost", "250"},
		{"", from, "x@shop.lodge.localhost", "250"},
		{"", "stranger@blog.lodge.localhost", "x@shop.lodge.localhost", "550 5.1.1"},
		{"", from, "x@off.lodge.localhost", "550 5.1.1"},
		{"", from, "x@none.lodge.localhost", "550 5.1.1"},
		{"", from, "nobody@lodge.localhost", "550 5.1.1"},
		{gateway.SendToAnyone, from, "eve@evil.example", "250"},
		{gateway.SendToAnyone, from, "x@off.lodge.localhost", "550 5.1.1"},
		{gateway.SendToNobody, from, owner, "550 5.7.1 blog may not send mail"},
		{gateway.SendToNobody, from, "x@shop.lodge.localhost", "550 5.7.1 blog may not send mail"},
		{gateway.SendToNobody, from, "root@blog", "250"},
		{"of-a-later-lodge", from, "wrote@example.com", "550 5.7.1 blog may not send mail"},
	} {
		f.set(t, blog, func(m *gateway.VM) {
			m.Mail.SendTo = row.setting
			m.Grants = []gateway.Grant{{To: granted.ID, Level: gateway.View}}
			m.Shares = []gateway.Share{{Port: 8000, Visibility: gateway.People, With: []gateway.Principal{shared.ID}}}
		})
		if got := f.reply(t, addr, row.from, row.to); !strings.HasPrefix(got, row.want) || len(got) > 512 {
			t.Errorf("%s: <%s> to <%s>: %q, want %q", row.setting, row.from, row.to, got, row.want)
		}
	}
	c, _ := hello(t, addr)
	f.set(t, blog, func(m *gateway.VM) { m.Mail.SendTo = gateway.SendToAnyone })
	c.ask("MAIL FROM:<>", "250")
	c.ask("RCPT TO:<a@example.com>", "250")
	c.ask("RCPT TO:<b@example.com>", "550 5.5.3")
}

// Without a relay the reply has the reason.
func TestOutsideIsNotSetUp(t *testing.T) {
	t.Parallel()
	f, _, _ := sending(t, func(c *Config) { c.relay = nil })
	blog := f.add(t, "blog")
	if got := f.reply(t, f.tap(t, blog), "a@blog.lodge.localhost", owner); !strings.HasPrefix(got, "550 5.7.1 Mail to the outside is not set up on this host") {
		t.Errorf("got %q", got)
	}
}

// Who wrote to a VM may be answered if the sender was proven, and nobody is opened by a forged one.
func TestAnswersToProvenSenders(t *testing.T) {
	t.Parallel()
	zone, _ := sender(t)
	f, _, _ := sending(t, checking(zone))
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	addr := f.tap(t, blog)
	const refused, from = "550 5.7.1 blog may write to its people", "a@blog.lodge.localhost"
	for _, row := range []struct{ source, envelope, header, reply string }{
		{forger, "victim@example.com", "From: victim@example.com", "victim@example.com"},
		{honest, "news@example.com", "From: News <victim@example.com>\r\nReply-To: other@example.com", ""},
		{honest, "x@example.com", "From: a@example.com, victim2@example.com", ""},
		{honest, "", "From: daemon@example.com", ""},
	} {
		helloFrom(t, row.source, f.addr).mail(row.envelope, row.header+"\r\n\r\nx\r\n", "250", blog)
		if row.reply != "" {
			if got := f.reply(t, addr, from, row.reply); !strings.HasPrefix(got, refused) {
				t.Errorf("after a forged sender: %q", got)
			}
		}
	}
	for to, want := range map[string]string{
		"victim@example.com": "250", "news@example.com": refused, "other@example.com": refused, "a@example.com": refused,
		"victim2@example.com": refused, "daemon@example.com": refused,
	} {
		if got := f.reply(t, addr, from, to); !strings.HasPrefix(got, want) {
			t.Errorf("to %s: %q, want %s", to, got, want)
		}
	}
	if got := f.reply(t, f.tap(t, shop), "a@shop.lodge.localhost", "victim@example.com"); !strings.HasPrefix(got, "550 5.7.1 shop") {
		t.Errorf("from another VM: %q", got)
	}
}
