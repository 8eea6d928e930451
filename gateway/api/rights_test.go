package api_test

import (
	"context"
	"slices"
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

// oneLink is a link to port 80 that a crash has left; it calls before it is removed.
type oneLink struct {
	noPasses
	removing func()
}

func (oneLink) Passes(_ context.Context, vm gateway.ID, kind gateway.PassKind) ([]gateway.Pass, error) {
	return []gateway.Pass{{ID: "0123456789abcdef", Kind: kind, VM: vm, Port: 80}}, nil
}

func (l oneLink) RemovePass(context.Context, gateway.ID, gateway.PassKind, string) error {
	l.removing()
	return nil
}

// A port that becomes open to links is never open to earlier ones.
func TestOldLinksEndBeforeThePortIsOpen(t *testing.T) {
	a, _ := sharing(t)
	ada, revoke := manager(t, a)
	visibility := func() gateway.Visibility {
		m, _ := a.Directory.ByName("blog")
		return m.Visibility(80)
	}
	var removals []gateway.Visibility
	a.Passes = oneLink{removing: func() { removals = append(removals, visibility()) }}
	link := api.Sharing{Share: api.Share{Port: 80, Visibility: gateway.Link}}
	for _, to := range []gateway.Visibility{gateway.Link, gateway.Link, gateway.Private} {
		_, err := ada.Share(t.Context(), "blog", api.Sharing{Share: api.Share{Port: 80, Visibility: to}})
		gatewaytest.Must(t, err)
	}
	if !slices.Equal(removals, []gateway.Visibility{gateway.Private, gateway.Private}) {
		t.Errorf("links were removed while the port was %q", removals)
	}
	a.Passes = oneLink{removing: revoke}
	if _, err := ada.Share(t.Context(), "blog", link); gateway.KindOf(err) != gateway.KindDenied || visibility() != gateway.Private {
		t.Errorf("with the right taken back: %v, %s", err, visibility())
	}
}
