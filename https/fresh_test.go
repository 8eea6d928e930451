package https_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A passkey is added soon after a login alone: later the account asks for another one, after which it
// opens again.
func TestAPasskeyNeedsAFreshLogin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ann := s.client()
	s.loginAtRoot(ann)
	begin := func() int {
		return s.do(ann, http.MethodPost, s.root()+"/.lodge/passkeys/new", strings.NewReader("{}"), "Content-Type", "application/json").StatusCode
	}
	const field, again = `data-passkey="register"`, `value="log-in-again"`
	if a := s.get(ann, s.root()+"/.lodge/account", browser()...); begin() != http.StatusOK || !strings.Contains(a.body, field) || strings.Contains(a.body, again) {
		t.Errorf("just logged in: %s", a.body)
	}
	all, err := s.db.WebSessions().WebSessions(t.Context(), s.people.Owner().ID)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d logins, %v", len(all), err)
	}
	all[0].Created = time.Now().Add(-15 * time.Minute)
	_, err = s.db.WebSessions().AddWebSession(t.Context(), all[0]) // in place of itself
	gatewaytest.Must(t, err)

	if a := s.get(ann, s.root()+"/.lodge/account", browser()...); begin() != http.StatusForbidden || strings.Contains(a.body, field) || !strings.Contains(a.body, again) {
		t.Errorf("later: %s", a.body)
	}
	a := s.form(ann, "/.lodge/account", url.Values{"do": {"log-in-again"}}, "Origin", s.root())
	if to := a.Header.Get("Location"); to != "/.lodge/login?again" {
		t.Fatalf("leads to %q", to)
	}
	for path, want := range map[string]int{"/.lodge/login?again": http.StatusOK, "/.lodge/login": http.StatusFound} {
		if a := s.get(ann, s.root()+path, browser()...); a.StatusCode != want {
			t.Errorf("%s with an old login: %s", path, a.Status)
		}
	}
	link, err := s.server.LoginURL(t.Context(), gateway.ID{}, s.people.Owner().ID)
	gatewaytest.Must(t, err)
	if a := s.useLink(ann, link); a.Header.Get("Location") != "/.lodge/account" || begin() != http.StatusOK {
		t.Errorf("logged in again: %s", a.Status)
	}
	if a := s.get(ann, s.root()+"/.lodge/login?again", browser()...); a.Header.Get("Location") != "/.lodge/account" {
		t.Errorf("afterwards the login leads to %q", a.Header.Get("Location"))
	}
}
