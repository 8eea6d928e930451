package mail

import (
	"strings"
	"testing"

	"lodge/gateway"
)

// A domain that a VM has for mail gets mail of strangers, of its VM and of others, and is what the VM may send
// from and is signed for. One for pages is none of this, and one that is removed ends at once: in the middle of a
// message too.
func TestOwnDomain(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, nil)
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	own := []gateway.Domain{{Name: "own.example", Mail: true}, {Name: "pages.example"}}
	f.set(t, blog, func(m *gateway.VM) { m.Domains, m.Mail.SendTo = own, gateway.SendToAnyone })
	for to, want := range map[string]string{"x@own.example": "250", "x@pages.example": "550 5.7.1", "x@www.own.example": "550 5.7.1"} {
		if got := f.reply(t, f.addr, "eve@evil.example", to); !strings.HasPrefix(got, want) {
			t.Errorf("mail of strangers for %s: %q, want %s", to, got, want)
		}
	}
	inside, other := f.tap(t, blog), f.tap(t, shop)
	if got := f.reply(t, other, "a@shop."+domain, "y@own.example"); !strings.HasPrefix(got, "250") {
		t.Errorf("mail of another VM: %q", got)
	}
	forger, _ := hello(t, other)
	forger.ask("MAIL FROM:<x@own.example>", "550 5.7.1 Sender address rejected")
	c, _ := hello(t, inside)
	c.ask("MAIL FROM:<x@pages.example>", "550 5.7.1 Sender address rejected: blog sends from anything@blog."+domain+", anything@own.example")
	if all := f.list(t, blog); len(all) != 0 {
		t.Errorf("%+v", all)
	}

	for from, signer := range map[string]string{"x@own.example": "own.example", "x@blog." + domain: domain} {
		c.ask("MAIL FROM:<x@own.example>", "250")
		c.ask("RCPT TO:<z@far.example>", "250")
		c.ask("RCPT TO:<y@own.example>", "250")
		c.ask("DATA", "354")
		c.ask("From: "+from+"\r\n\r\nhello\r\n.", "250")
		if got := out.last(t); got.Signer != signer || len(got.To) != 1 || got.To[0] != "z@far.example" {
			t.Errorf("From %s is signed by %q, for %q", from, got.Signer, got.To)
		}
	}
	if all := f.list(t, blog); len(all) != 2 || all[0].Rcpt != "y@own.example" {
		t.Errorf("%+v", all)
	}

	outside, _ := hello(t, f.addr)
	for _, begun := range []*talk{c, outside} {
		begun.ask("MAIL FROM:<x@own.example>", "250")
		begun.ask("RCPT TO:<y@own.example>", "250")
		begun.ask("DATA", "354")
	}
	f.set(t, blog, func(m *gateway.VM) { m.Domains = nil })
	f.set(t, shop, func(m *gateway.VM) { m.Domains = own })
	c.ask("Subject: late\r\n\r\n.", "550 5.7.1 Sender address rejected")
	outside.ask("Subject: late\r\n\r\n.", "550 5.1.1")
	c.ask("MAIL FROM:<x@own.example>", "550 5.7.1 Sender address rejected")
	if all := f.list(t, shop); len(all) != 0 || len(f.list(t, blog)) != 2 {
		t.Errorf("the domain's next VM has %+v", all)
	}
}

// On a host that sends no mail, an own domain needs the record alone by which mail comes.
func TestRecordsOfAnOwnDomain(t *testing.T) {
	t.Parallel()
	records, err := start(t, t.TempDir(), nil).DNSRecords("own.example")
	if err != nil || len(records) != 1 || records[0].Type != "MX" || !strings.HasSuffix(records[0].Value, " "+domain+".") {
		t.Errorf("%+v, %v", records, err)
	}
}
