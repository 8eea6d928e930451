package api_test

import (
	"context"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/domains"
	"lodge/gateway/gatewaytest"
)

// slowDomains proves every domain, and calls meanwhile.
type slowDomains struct {
	*domains.Verifier
	meanwhile func()
}

func (d slowDomains) Prove(context.Context, gateway.VM, string, bool) (domains.Proof, error) {
	d.meanwhile()
	return domains.ByTXT, nil
}

// manager is Ada, who may manage blog; revoke ends that.
func manager(t *testing.T, a *api.API) (ada api.Session, revoke func()) {
	t.Helper()
	grant := func(level gateway.Level) {
		_, err := a.As(api.Owner()).Grant(t.Context(), "blog", api.Grant{Who: "ada@example.com", Level: level})
		gatewaytest.Must(t, err)
	}
	grant(gateway.Manage)
	p, _ := a.People.ByMail("ada@example.com")
	return a.As(api.PersonCaller(p.ID)), func() { grant(gateway.NoLevel) }
}

// A right that is taken back during slow work is gone when its result is written.
func TestRightsAreAskedAtTheWrite(t *testing.T) {
	a, _ := sharing(t)
	ada, revoke := manager(t, a)
	a.Domains = slowDomains{domains.New(domains.Config{Domain: "lodge.localhost"}), revoke}
	_, err := ada.AddDomain(t.Context(), "blog", gateway.Domain{Name: "blog.example.com"})
	if m, _ := a.Directory.ByName("blog"); gateway.KindOf(err) != gateway.KindDenied || len(m.Domains) != 0 {
		t.Errorf("with the right taken back: %v, %+v", err, m.Domains)
	}
}
