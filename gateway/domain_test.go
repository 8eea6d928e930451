package gateway_test

import (
	"fmt"
	"testing"

	"lodge/gateway"
)

func addDomain(t *testing.T, d *gateway.Directory, m gateway.VM, name string, port uint16) error {
	t.Helper()
	_, err := d.Update(t.Context(), m.ID, func(m *gateway.VM) error {
		m.Domains = m.WithDomain(gateway.Domain{Name: name, Port: port})
		return nil
	})
	return err
}

func TestByDomain(t *testing.T) {
	d, _ := openDirectory(t)
	blog, shop := create(t, d, "blog"), create(t, d, "shop")
	fatal(t, addDomain(t, d, blog, "*.example.com", 0))
	fatal(t, addDomain(t, d, blog, "example.com", 80))
	fatal(t, addDomain(t, d, shop, "app.example.com", 8080))
	fatal(t, addDomain(t, d, shop, "app.example.com", 9090)) // the port changes
	for host, want := range map[string]string{
		"www.example.com": "blog *.example.com 0", "example.com": "blog example.com 80", "app.example.com": "shop app.example.com 9090",
		"a.www.example.com": "", "a.app.example.com": "", "com": "", "": "", "*.example.com": "blog *.example.com 0", "example.org": "", "www.example.com.evil.org": "",
	} {
		got := ""
		if m, domain, ok := d.ByDomain(host); ok {
			got = fmt.Sprint(m.Name, " ", domain.Name, " ", domain.Port)
		}
		if got != want {
			t.Errorf("%q leads to %q, want %q", host, got, want)
		}
	}
}

// A domain belongs to one VM, until that is removed.
func TestDomainBelongsToOneVM(t *testing.T) {
	d, _ := openDirectory(t)
	blog, shop := create(t, d, "blog"), create(t, d, "shop")
	fatal(t, addDomain(t, d, blog, "app.example.com", 0))
	if err := addDomain(t, d, shop, "app.example.com", 0); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("another VM's domain: %v", err)
	}
	third := machine("third")
	third.Domains = []gateway.Domain{{Name: "app.example.com"}}
	if _, err := d.Create(t.Context(), third); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("a new VM with another's domain: %v", err)
	}
	if m, ok := d.HolderOf("app.example.com"); !ok || m.ID != blog.ID {
		t.Errorf("it is %q's now", m.Name)
	}
	_, err := d.Update(t.Context(), blog.ID, desire(gateway.Removed))
	fatal(t, err)
	if m, _, ok := d.ByDomain("app.example.com"); ok {
		t.Errorf("it leads to %q, which is being removed", m.Name)
	}
	fatal(t, addDomain(t, d, shop, "app.example.com", 0))
	_, err = d.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Ready = true; return nil })
	if err != nil {
		t.Errorf("the removal cannot continue: %v", err)
	}
}

func TestDomainsAreLimited(t *testing.T) {
	d, _ := openDirectory(t)
	blog := create(t, d, "blog")
	for i := range gateway.MaxDomains {
		fatal(t, addDomain(t, d, blog, fmt.Sprintf("d%d.example.com", i), 0))
	}
	if err := addDomain(t, d, blog, "more.example.com", 0); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("one more: %v", err)
	}
	if err := addDomain(t, d, blog, "d3.example.com", 80); err != nil {
		t.Errorf("another port for one that it has: %v", err)
	}
	_, err := d.Update(t.Context(), blog.ID, func(m *gateway.VM) error {
		m.Domains = m.WithoutDomain("d3.example.com")
		return nil
	})
	fatal(t, err)
	blog, _ = d.ByID(blog.ID)
	if err := d.CheckDomain(blog, "more.example.com"); err != nil || blog.HasDomain("d3.example.com") {
		t.Errorf("after one is removed: %v", err)
	}
}

// A domain is for mail only if its VM has it so: none by a wildcard, nor one for pages.
func TestByMailDomain(t *testing.T) {
	d, _ := openDirectory(t)
	blog, shop := create(t, d, "blog"), create(t, d, "shop")
	set := func(m gateway.VM, all ...gateway.Domain) {
		t.Helper()
		_, err := d.Update(t.Context(), m.ID, func(m *gateway.VM) error { m.Domains = all; return nil })
		fatal(t, err)
	}
	set(blog, gateway.Domain{Name: "mail.example", Mail: true}, gateway.Domain{Name: "*.mail.example", Mail: true}, gateway.Domain{Name: "pages.example"})
	set(shop, gateway.Domain{Name: "shop.mail.example"})
	for host, want := range map[string]string{"mail.example": "blog", "www.mail.example": "", "*.mail.example": "", "pages.example": "", "shop.mail.example": "", "": ""} {
		if m, ok := d.ByMailDomain(host); m.Name != want || ok != (want != "") {
			t.Errorf("mail for %q is %q's, want %q", host, m.Name, want)
		}
	}
	set(blog, gateway.Domain{Name: "mail.example"})
	if m, ok := d.ByMailDomain("mail.example"); ok {
		t.Errorf("mail is still %q's", m.Name)
	}
}
