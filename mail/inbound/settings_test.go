package inbound

import (
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/smtpd"
)

// settingsPolicy has a VM for each kind of settings. The local part open is valid until now plus an hour,
// ended until now.
func settingsPolicy(tb testing.TB, now time.Time) (p *Policy, open, ended string) {
	tb.Helper()
	open, ended = gateway.NewMailLocal(), gateway.NewMailLocal()
	vm := func(name string, mail gateway.MailSettings) gateway.VM {
		return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Stopped, Mail: mail}
	}
	addresses := []gateway.MailAddress{
		{Local: open, From: []string{"@shop.example"}, Expires: now.Add(time.Hour)}, {Local: ended, From: []string{"@shop.example"}, Expires: now},
	}
	custom := vm("custom", gateway.MailSettings{Addresses: addresses})
	custom.Domains = []gateway.Domain{{Name: "own.example", Mail: true}, {Name: "pages.example"}, {Name: "xn--bcher-kva.example", Mail: true}}
	directory := gatewaytest.NewDirectory(tb, new(gatewaytest.Records), custom,
		vm("plain", gateway.MailSettings{Aliases: []string{"sales@", "shop", "first.last@"}, Addresses: addresses}),
		vm("off", gateway.MailSettings{Off: true, Aliases: []string{"off@"}, Addresses: addresses}),
		vm("strict", gateway.MailSettings{AllowFrom: []string{"ada@example.com", "@example.org", "@xn--bcher-kva.example"}, Addresses: addresses}))
	return New(Config{Domain: "lodge.localhost", Directory: directory, Logger: new(gatewaytest.Log).Logger()}), open, ended
}

// Every setting, with senders it accepts and senders it does not. "" is the null sender.
func TestSettingsDecideAtRCPT(t *testing.T) {
	now := time.Now()
	p, open, ended := settingsPolicy(t, now)
	for _, row := range []struct{ name, to, from, want string }{
		{"anyone", "x@plain", "eve@evil.example", "plain"},
		{"anyone: bounces", "x@plain", "", "plain"},
		{"alias at the domain", "sales@", "eve@evil.example", "plain"},
		{"alias in capitals with a detail", "Sales+june@", "eve@evil.example", "plain"},
		{"alias with a dot", "first.last@", "eve@evil.example", "plain"},
		{"no alias", "sale@", "eve@evil.example", "5.7.1"},
		{"alias that is a name", "x@shop", "eve@evil.example", "plain"},
		{"alias of the domain as a name", "x@sales", "eve@evil.example", "5.1.1"},
		{"alias that is a name, at the domain", "shop@", "eve@evil.example", "5.7.1"},
		{"below an alias", "x@a.shop", "eve@evil.example", "5.1.1"},
		{"off", "x@off", "ada@example.com", "5.1.1"},
		{"off: alias", "off@", "ada@example.com", "5.1.1"},
		{"off: address", open + "@off", "a@shop.example", "5.1.1"},
		{"allowed address", "x@strict", "Ada@Example.COM", "strict"},
		{"allowed domain", "x@strict", "any@example.org", "strict"},
		{"allowed domain in Unicode", "x@strict", "any@bücher.example", "strict"},
		{"another address of its domain", "x@strict", "bob@example.com", "5.1.1"},
		{"below an allowed domain", "x@strict", "any@sub.example.org", "5.1.1"},
		{"longer than an allowed domain", "x@strict", "any@evilexample.org", "5.1.1"},
		{"quoted local part with an allowed one", "x@strict", `"ada@example.com"@evil.example`, "5.1.1"},
		{"list: bounces", "x@strict", "", "5.1.1"},
		{"address", open + "@plain", "a@shop.example", "plain"},
		{"address in capitals with a detail", strings.ToUpper(open) + "+x@plain", "a@shop.example", "plain"},
		{"address before the list", open + "@strict", "a@shop.example", "strict"},
		{"address: not its sender", open + "@plain", "eve@evil.example", "5.1.1"},
		{"address: a sender of the list", open + "@strict", "ada@example.com", "5.1.1"},
		{"address: bounces", open + "@plain", "", "5.1.1"},
		{"address that has expired", ended + "@plain", "a@shop.example", "5.1.1"},
		{"address that never was", gateway.NewMailLocal() + "@plain", "a@shop.example", "5.1.1"},
		{"no VM", "x@other", "ada@example.com", "5.1.1"},
		{"own domain", "x@own.example.", "eve@evil.example", "custom"},
		{"own domain: its postmaster", "Postmaster@OWN.example.", "", "custom"},
		{"own domain in Unicode", "x@bücher.example.", "eve@evil.example", "custom"},
		{"own domain: address", open + "@own.example.", "a@shop.example", "custom"},
		{"own domain: not the address's sender", open + "@own.example.", "eve@evil.example", "5.1.1"},
		{"below an own domain", "x@www.own.example.", "eve@evil.example", "5.7.1"},
		{"longer than an own domain", "x@evilown.example.", "eve@evil.example", "5.7.1"},
		{"own domain for pages alone", "x@pages.example.", "eve@evil.example", "5.7.1"},
	} {
		host := strings.TrimSuffix(row.to, "@") + ".lodge.localhost"
		if strings.HasSuffix(row.to, ".") { // a whole name
			host = row.to
		} else if local, ok := strings.CutSuffix(row.to, "@"); ok {
			host = local + "@lodge.localhost"
		}
		to, fine := smtpd.ParsePath("<" + host + ">")
		from, ok := smtpd.ParsePath("<" + row.from + ">")
		vm, err := p.mailboxOf(to, from, now)
		got := vm.Name
		if err != nil {
			got = smtpd.ReplyTo(err).Status
		}
		if !fine || !ok || got != row.want {
			t.Errorf("%s: %s from <%s>: %q, want %q", row.name, to, row.from, got, row.want)
		}
	}
}

// Whoever writes: a VM that is off gets nothing, one with a list only what the list has, and a local part
// like those of MailAddress nothing without one.
func FuzzSettings(f *testing.F) {
	now := time.Now()
	p, open, ended := settingsPolicy(f, now)
	for _, seed := range [][2]string{{open + "@plain", "a@shop.example"}, {ended + "@plain", "a@shop.example"}, {"x@strict", "ada@example.com"}, {"x@off", ""}} {
		f.Add("<"+seed[0]+".lodge.localhost>", "<"+seed[1]+">")
	}
	f.Fuzz(func(t *testing.T, rcpt, sender string) {
		to, ok := smtpd.ParsePath(rcpt)
		from, fine := smtpd.ParsePath(sender)
		if !ok || !fine {
			return
		}
		vm, err := p.mailboxOf(to, from, now)
		if err != nil || vm == gateway.Postmaster() {
			return
		}
		by, local := domainOf(from), gateway.PlainLocal(to.Local)
		listed := by == "example.org" || by == "xn--bcher-kva.example" || by == "example.com" && strings.EqualFold(from.Local, "ada")
		switch {
		case vm.Name == "off", local == ended:
			t.Errorf("%s from %s is accepted", rcpt, sender)
		case local == open && by != "shop.example", vm.Name == "strict" && local != open && !listed:
			t.Errorf("%s from %s is accepted by %s", rcpt, sender, vm.Name)
		}
	})
}
