package inbound

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/smtpd"
)

func testPolicy(tb testing.TB) *Policy {
	tb.Helper()
	blog := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Desired: gateway.Running}
	directory := gatewaytest.NewDirectory(tb, new(gatewaytest.Records), blog)
	return New(Config{Domain: "Lodge.localhost", Directory: directory, Logger: new(gatewaytest.Log).Logger()})
}

// An address is a VM's only when its domain is exactly one label in front of ours, and the operator's
// only at the domain itself.
func TestMailboxOf(t *testing.T) {
	p := testPolicy(t)
	for path, want := range map[string]string{
		"<x@blog.lodge.localhost>": "blog", "<X@BLOG.Lodge.localhost.>": "blog", `<"a@b"@blog.lodge.localhost>`: "blog",
		"<postmaster>": "postmaster", "<Postmaster@lodge.localhost>": "postmaster", "<abuse@lodge.localhost>": "postmaster",
		"<postmaster@blog.lodge.localhost>": "blog",
		"<x@lodge.localhost>":               "5.7.1", "<x@example.com>": "5.7.1", "<x@blog.evillodge.localhost>": "5.7.1", "<x@[127.0.0.1]>": "5.7.1",
		"<x@other.lodge.localhost>": "5.1.1", "<x@a.blog.lodge.localhost>": "5.1.1", "<x@postmaster.lodge.localhost>": "5.1.1",
		"<abuse@other.lodge.localhost>": "5.1.1", "<x@blo\u0067\u0301.lodge.localhost>": "5.1.1", "<x@\uff42log.lodge.localhost>": "blog",
	} {
		to, ok := smtpd.ParsePath(path)
		vm, err := p.mailboxOf(to, smtpd.Path{Local: "a", Domain: "example.com"}, time.Now())
		got := vm.Name
		if err != nil {
			got = smtpd.ReplyTo(err).Status
		}
		if !ok || got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// Whatever an address is, it belongs to nobody, to the VM there is, or to the operator, and its domain
// shows which.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"<a@blog.lodge.localhost>", "<a@b@BLOG.Lodge.localhost.>", "<@.lodge.localhost>", `<"a b"@lodge.localhost>`, "<postmaster>"} {
		f.Add(seed)
	}
	p := testPolicy(f)
	f.Fuzz(func(t *testing.T, text string) {
		to, ok := smtpd.ParsePath(text)
		if !ok {
			return
		}
		vm, err := p.mailboxOf(to, smtpd.Path{Local: "a", Domain: "example.com"}, time.Now())
		host := domainOf(to)
		if err == nil && vm.Name != strings.TrimSuffix(host, ".lodge.localhost") && (vm != gateway.Postmaster() || host != "" && host != "lodge.localhost") {
			t.Errorf("%q belongs to %q", text, vm.Name)
		}
	})
}

// Whatever a client sends, the trace headers have four lines.
func FuzzTrace(f *testing.F) {
	f.Add("client.example", "::1", "<a@b>", "<x@y>")
	f.Add("x\r\nBcc: evil", "127.0.0.1", `<"a\"b\\@c"@d>`, "<\"x y\"@z>")
	f.Fuzz(func(t *testing.T, helo, remote, from, rcpt string) {
		sender, ok := smtpd.ParsePath(from)
		to, fine := smtpd.ParsePath(rcpt)
		if !ok || !fine || strings.ContainsAny(remote, "\r\n") {
			return
		}
		head := trace{helo: helo, remote: remote, by: "x", with: "ESMTP"}.head("id", sender.String(), to.String())
		if strings.Count(head, "\n") != 5 || strings.Count(head, "\r\n") != 5 || strings.Count(head, "\r") != 5 {
			t.Errorf("%q", head)
		}
	})
}

// A subject is one line of valid UTF-8 of at most 200 bytes without control characters, whatever the
// message.
func FuzzSubject(f *testing.F) {
	f.Add([]byte("From: x\r\nSubject: =?utf-8?q?h=C3=A9?=\r\n =?utf-8?b?4piD?=\r\n\r\nbody"))
	f.Add([]byte("Subject: =?utf-8?q?=0D=0Ax?="))
	f.Fuzz(func(t *testing.T, first []byte) {
		s := Subject(first)
		if len(s) > maxSubjectBytes || !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\x00\x1b") {
			t.Errorf("%q", s)
		}
	})
}
