package oidc_test

import (
	"net/http"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https/login/oidc"
	"lodge/https/login/oidc/oidctest"
)

// TestRealProvider: a provider that others have written proves the address of its user, once, and only
// one that it has verified.
func TestRealProvider(t *testing.T) {
	const origin = "https://lodge.localhost"
	real := oidctest.Start(t, origin+oidc.CallbackPath("zitadel"))
	p := newParty(t, newEnemy(t), func(c *oidc.Config) {
		c.Providers = []oidc.Provider{{Name: "zitadel", Issuer: real.Issuer, ClientID: real.ClientID, Secret: real.Secret}}
	})
	login := func(username string) (target, address string, err error) {
		at, err := p.begin(t.Context(), "zitadel")
		gatewaytest.Must(t, err)
		target = real.Login(t, at.String(), username).RequestURI()
		address, _, err = p.Finish(p.request(t.Context(), http.MethodGet, target), "zitadel")
		return target, address, err
	}
	target, address, err := login("ann")
	if err != nil || address != "ann@example.org" {
		t.Errorf("ann: %q, %v\n%s", address, err, p.log)
	}
	if _, _, err := p.Finish(p.request(t.Context(), http.MethodGet, target), "zitadel"); err == nil {
		t.Error("the answer worked twice")
	}
	if _, address, err = login("bob"); gateway.KindOf(err) != gateway.KindDenied || err == nil {
		t.Errorf("bob: %q, %v", address, err)
	}
	if _, address, err = login("ann"); err != nil || address != "ann@example.org" {
		t.Errorf("ann again: %q, %v", address, err)
	}
	at, err := p.begin(t.Context(), "zitadel")
	gatewaytest.Must(t, err)
	target = real.Login(t, at.String(), "ann").RequestURI()
	real.Stop()
	if _, _, err := p.Finish(p.request(t.Context(), http.MethodGet, target), "zitadel"); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("it is gone: %v", err)
	}
}

// A secret that is wrong proves nothing.
func TestRealProviderWithAWrongSecret(t *testing.T) {
	real := oidctest.Start(t, "https://lodge.localhost"+oidc.CallbackPath("zitadel"))
	p := newParty(t, newEnemy(t), func(c *oidc.Config) {
		c.Providers = []oidc.Provider{{Name: "zitadel", Issuer: real.Issuer, ClientID: real.ClientID, Secret: "wrong"}}
	})
	at, err := p.begin(t.Context(), "zitadel")
	gatewaytest.Must(t, err)
	target := real.Login(t, at.String(), "ann").RequestURI()
	if address, _, err := p.Finish(p.request(t.Context(), http.MethodGet, target), "zitadel"); gateway.KindOf(err) != gateway.KindDenied || err == nil {
		t.Errorf("%q, %v", address, err)
	}
}
