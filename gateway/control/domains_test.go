package control_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/api"
)

func TestDomains(t *testing.T) {
	h, c := start(t)
	h.Add(t, "blog")
	h.Add(t, "shop")
	_, err := c.AddDomain(t.Context(), "blog", gateway.Domain{Name: "App.example.com.", Port: 8080})
	if gateway.KindOf(err) != gateway.KindConflict || !strings.Contains(api.ErrorOf(err).Hint, "app.example.com. CNAME blog.lodge.localhost.") {
		t.Errorf("without a record: %v, %q", err, api.ErrorOf(err).Hint)
	}
	h.DNS.Set(t, "app.example.com. CNAME blog.lodge.localhost.", "*.x.certified.example. CNAME blog.lodge.localhost.")
	want := api.Domain{VM: "blog", Domain: gateway.Domain{Name: "app.example.com", Port: 8080}, URL: "https://app.example.com", Proof: "cname"}
	got, err := c.AddDomain(t.Context(), "blog", gateway.Domain{Name: "App.example.com.", Port: 8080})
	if !strings.Contains(got.Note, "ACME") {
		t.Errorf("the note is %q", got.Note)
	}
	want.Note = got.Note
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	wild, err := c.AddDomain(t.Context(), "blog", gateway.Domain{Name: "*.x.certified.example"})
	if err != nil || wild.Note != "" || wild.Name != "*.x.certified.example" {
		t.Errorf("a wildcard: %+v, %v", wild, err)
	}
	h.DNS.Set(t) // the port of a domain that the VM has needs no proof
	if got, err = c.AddDomain(t.Context(), "blog", gateway.Domain{Name: "app.example.com"}); err != nil || got.Port != 0 || got.Proof != "" {
		t.Errorf("another port: %+v, %v", got, err)
	}
	h.DNS.Set(t, "app.example.com. CNAME shop.lodge.localhost.")
	if _, err := c.AddDomain(t.Context(), "shop", gateway.Domain{Name: "app.example.com"}); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("another VM's domain: %v", err)
	}
	all, err := c.Domains(t.Context(), "")
	if err != nil || len(all) != 2 || all[0].Name != "app.example.com" || all[1].VM != "blog" {
		t.Errorf("all domains: %+v, %v", all, err)
	}
	if of, err := c.Domains(t.Context(), "shop"); err != nil || len(of) != 0 {
		t.Errorf("shop's domains: %+v, %v", of, err)
	}
	if vm, err := c.Show(t.Context(), "blog"); err != nil || len(vm.Domains) != 2 {
		t.Errorf("blog: %+v, %v", vm, err)
	}
	for _, domain := range []string{"APP.example.com", "*.x.certified.example"} {
		if err := c.RemoveDomain(t.Context(), domain); err != nil {
			t.Errorf("remove %s: %v", domain, err)
		}
	}
	if _, err := c.AddDomain(t.Context(), "shop", gateway.Domain{Name: "app.example.com"}); err != nil {
		t.Errorf("after its removal there: %v", err)
	}
	for name, kind := range map[string]gateway.Kind{"absent.example.com": gateway.KindNotFound, "..": gateway.KindInvalid, "": gateway.KindInvalid, "a/b": gateway.KindInvalid, "com": gateway.KindInvalid} {
		if err := c.RemoveDomain(t.Context(), name); gateway.KindOf(err) != kind {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	if _, err := c.AddDomain(t.Context(), "nope", gateway.Domain{Name: "app.example.com"}); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("no such VM: %v", err)
	}
	if _, err := c.Domains(t.Context(), "nope"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("domains of no such VM: %v", err)
	}
}

// A VM may end the TLS of a domain itself. Every answer names the port, and what is missing.
func TestDomainsPassThrough(t *testing.T) {
	h, c := start(t)
	h.Add(t, "blog")
	h.DNS.Set(t, "own.example.com. CNAME blog.lodge.localhost.", "*.x.example.com. CNAME blog.lodge.localhost.")
	own := gateway.Domain{Name: "Own.example.com", Passthrough: true}
	want := api.Domain{VM: "blog", Domain: gateway.Domain{Name: "own.example.com", Port: 443, Passthrough: true}, URL: "https://own.example.com", Proof: "cname"}
	got, err := c.AddDomain(t.Context(), "blog", own)
	if !strings.Contains(got.Note, "Nothing listens at port 443 of blog") {
		t.Errorf("the note is %q", got.Note)
	}
	want.Note = got.Note
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	for name, kind := range map[string]gateway.Kind{
		"*.x.example.com": gateway.KindInvalid, "unproven.example.com": gateway.KindConflict, "lodge.localhost": gateway.KindInvalid,
		"shop.lodge.localhost": gateway.KindInvalid,
	} {
		if _, err := c.AddDomain(t.Context(), "blog", gateway.Domain{Name: name, Passthrough: true}); gateway.KindOf(err) != kind {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.Listen()
	h.DNS.Set(t) // a domain that the VM has needs no further proof
	for _, to := range []gateway.Domain{
		{Name: "own.example.com", Port: 8443, Passthrough: true}, {Name: "own.example.com"}, {Name: "own.example.com", Port: 8443, Passthrough: true},
	} {
		got, err := c.AddDomain(t.Context(), "blog", to)
		if err != nil || got.Domain != to || strings.Contains(got.Note, "ACME") == to.Passthrough {
			t.Errorf("changed to %+v: %+v, %v", to, got, err)
		}
		if all, err := c.Domains(t.Context(), "blog"); err != nil || len(all) != 1 || all[0].Domain != to {
			t.Errorf("after the change to %+v: %+v, %v", to, all, err)
		}
	}
}

// Mail is a domain's only if it is asked for, by a proof of its own, and never a wildcard's.
func TestDomainsForMail(t *testing.T) {
	h, c := start(t)
	h.Add(t, "blog")
	h.DNS.Set(t, "own.example.com. CNAME blog.lodge.localhost.", "*.own.example.com. CNAME blog.lodge.localhost.")
	own := gateway.Domain{Name: "own.example.com"}
	add := func(mail bool, want gateway.Kind) {
		t.Helper()
		own.Mail = mail
		got, err := c.AddDomain(t.Context(), "blog", own)
		if (err == nil) != (want == "") || err != nil && gateway.KindOf(err) != want || err == nil && got.Mail != mail {
			t.Errorf("mail %v: %+v, %v", mail, got, err)
		}
	}
	add(false, "")
	if _, err := c.MailDNS(t.Context(), "blog"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("records of none: %v", err)
	}
	h.DNS.Set(t)
	add(true, gateway.KindConflict)
	if vm, err := c.Show(t.Context(), "blog"); err != nil || vm.Domains[0].Mail {
		t.Errorf("%+v, %v", vm.Domains, err)
	}
	h.DNS.Set(t, "own.example.com. CNAME blog.lodge.localhost.")
	add(true, "")
	h.DNS.Set(t)
	add(true, "")
	if records, err := c.MailDNS(t.Context(), "blog"); err != nil || len(records) != 1 || records[0].Name != "own.example.com." {
		t.Errorf("%+v, %v", records, err)
	}
	if set, err := c.MailSettings(t.Context(), "blog"); err != nil || len(set.OwnDomains) != 1 {
		t.Errorf("%+v, %v", set, err)
	}
	add(false, "")
	if set, err := c.MailSettings(t.Context(), "blog"); err != nil || len(set.OwnDomains) != 0 {
		t.Errorf("%+v, %v", set, err)
	}
	if _, err := c.AddDomain(t.Context(), "blog", gateway.Domain{Name: "*.own.example.com", Mail: true}); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("a wildcard: %v", err)
	}
}
