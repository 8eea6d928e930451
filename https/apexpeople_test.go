package https_test

import (
	"net/http"
	"net/url"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
)

// After a login at the domain everyone opens what is for them, and nothing else.
func TestLoginAtTheDomainOpensWhatIsForThePerson(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog, shop := k.vm("blog"), k.vm("shop")
	k.app(blog, 80, echo("blog"))
	k.app(blog, 8001, echo("8001"))
	k.app(blog, 8002, echo("8002"))
	k.app(shop, 80, echo("shop"))
	k.change(blog, func(m *gateway.VM) {
		m.Shares = []gateway.Share{
			{Port: 8001, Visibility: gateway.People, With: []gateway.Principal{k.eve.ID}},
			{Port: 8002, Visibility: gateway.People, Domains: []string{"example.net"}},
		}
	})
	k.change(shop, func(m *gateway.VM) { m.Grants = m.WithGrant(k.bob.ID, gateway.View) })
	for _, tt := range []struct {
		who   people.Person
		opens map[string]bool
	}{
		{k.people.Owner(), map[string]bool{"blog": true, "8001-blog": true, "8002-blog": true, "shop": true}},
		{k.eve, map[string]bool{"blog": false, "8001-blog": true, "8002-blog": false, "shop": false}},
		{k.bob, map[string]bool{"blog": false, "8001-blog": false, "8002-blog": true, "shop": true}},
	} {
		c := k.client()
		k.loginAtRootAs(c, tt.who)
		for host, want := range tt.opens {
			a := k.through(c, k.root()+"/.lodge/login?"+url.Values{"to": {k.url(host) + "/"}}.Encode())
			if got := a.StatusCode == http.StatusOK; got != want {
				t.Errorf("%s at %s: %s: %.200s", tt.who.Mail, host, a.Status, a.body)
			}
		}
	}
}

// The removal of a person ends the login at the domain with what is open by it, and removes what is kept.
func TestRemovalEndsTheLoginAtTheDomain(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog := k.vm("blog", public(gateway.DefaultPort)...)
	k.app(blog, 80, http.HandlerFunc(endless))
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.View) })
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.eve.ID, gateway.View) })
	ada, eve := k.client(), k.client()
	k.loginAtRootAs(ada, k.ada)
	k.loginAtRootAs(eve, k.eve)
	k.enter(ada, "blog")
	k.enter(eve, "blog")
	key := gateway.Passkey{ID: []byte("ada's"), Person: k.ada.ID, Name: "phone"}
	gatewaytest.Must(t, k.db.Passkeys().AddPasskey(t.Context(), key))
	held, _ := k.pass(blog, gateway.Pass{Kind: gateway.TokenPass, Person: k.ada.ID, AllPorts: true})
	stream, others := k.openStream(ada, k.url("blog")), k.openStream(eve, k.url("blog"))
	late, err := k.server.LoginURL(t.Context(), gateway.ID{}, k.ada.ID)
	gatewaytest.Must(t, err)

	_, err = k.people.Remove(t.Context(), k.ada.Mail)
	gatewaytest.Must(t, err)
	k.person(k.ada.Mail) // another one
	if stream() == nil {
		t.Error("what was open still is")
	}
	if others() != nil {
		t.Error("another person's stream ended")
	}
	if a := k.get(ada, k.root()+"/.lodge/sessions"); a.StatusCode != http.StatusForbidden {
		t.Errorf("the session at the domain: %s", a.Status)
	}
	if a := k.useLink(k.client(), late); a.StatusCode != http.StatusForbidden {
		t.Errorf("a link of before: %s", a.Status)
	}
	if len(k.sessions(eve)) != 1 {
		t.Error("another person's session ended")
	}
	keys, err := k.db.Passkeys().Passkeys(t.Context(), k.ada.ID)
	if err != nil || len(keys) != 0 {
		t.Errorf("passkeys are left: %d, %v", len(keys), err)
	}
	left, err := k.db.WebSessions().WebSessions(t.Context(), k.ada.ID)
	if err != nil || len(left) != 0 {
		t.Errorf("logins are left: %d, %v", len(left), err)
	}
	if passes, err := k.server.Passes(t.Context(), blog.ID, gateway.TokenPass); err != nil || len(passes) != 0 {
		t.Errorf("tokens are left: %v, %v (%.6s)", passes, err, held)
	}
}
