package https_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
)

// revocation is a way in to port 8001 of blog, and what ends it.
type revocation struct {
	enter  func(k known, blog gateway.VM) (header []string) // of a request that is let in
	revoke func(k known, blog gateway.VM)
	all    bool // the owner's, too
}

// granted lets Ada in by a grant, and returns the cookie of her session.
func (k known) granted(blog gateway.VM) (header []string) {
	k.tb.Helper()
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.View) })
	return []string{"Cookie", k.cookie(k.opened(blog, k.ada, "8001"), "8001-blog")}
}

// shared lets somebody in by a share alone.
func (k known) shared(blog gateway.VM, who people.Person, share gateway.Share) (header []string) {
	k.tb.Helper()
	share.Port = 8001
	k.change(blog, func(m *gateway.VM) { m.Shares = m.WithShare(share) })
	c := k.client()
	k.loginAtRootAs(c, who)
	if a := k.followAll(c, k.url("8001-blog")+"/page"); a.StatusCode != http.StatusOK {
		k.tb.Fatalf("%s: %s: %s", who.Mail, a.Status, a.body)
	}
	return []string{"Cookie", k.cookieOf(c, k.url("8001-blog"))}
}

func sharedWith(share gateway.Share) func(known, gateway.VM) {
	share.Port = 8001
	return func(k known, blog gateway.VM) {
		k.change(blog, func(m *gateway.VM) { m.Shares = m.WithShare(share) })
	}
}

func revocations() map[string]revocation {
	var phone *http.Client // each row runs alone
	private := sharedWith(gateway.Share{Visibility: gateway.Private})
	var pass gateway.Pass
	return map[string]revocation{
		"visibility": {func(k known, blog gateway.VM) []string {
			sharedWith(gateway.Share{Visibility: gateway.Public})(k, blog)
			return nil
		}, private, false},
		"address": {func(k known, blog gateway.VM) []string {
			return k.shared(blog, k.bob, gateway.Share{Visibility: gateway.People, With: []gateway.Principal{k.bob.ID}})
		}, func(k known, blog gateway.VM) {
			sharedWith(gateway.Share{Visibility: gateway.People, With: []gateway.Principal{k.eve.ID}})(k, blog)
		}, false},
		"domain of addresses": {func(k known, blog gateway.VM) []string {
			return k.shared(blog, k.bob, gateway.Share{Visibility: gateway.People, Domains: []string{"example.net"}})
		}, private, false},
		"team membership": {func(k known, blog gateway.VM) []string {
			return k.shared(blog, k.ada, gateway.Share{Visibility: gateway.Team, With: []gateway.Principal{k.devs.ID}})
		}, func(k known, _ gateway.VM) {
			_, err := k.people.ChangeTeam(k.tb.Context(), "devs", nil, []gateway.Principal{k.ada.ID})
			gatewaytest.Must(k.tb, err)
		}, false},
		"team": {func(k known, blog gateway.VM) []string {
			return k.shared(blog, k.ada, gateway.Share{Visibility: gateway.Team, With: []gateway.Principal{k.devs.ID}})
		}, func(k known, _ gateway.VM) {
			_, err := k.people.RemoveTeam(k.tb.Context(), "devs")
			gatewaytest.Must(k.tb, err)
		}, false},
		"person": {known.granted, func(k known, _ gateway.VM) {
			_, err := k.people.Remove(k.tb.Context(), k.ada.Mail)
			gatewaytest.Must(k.tb, err)
		}, false},
		"grant": {known.granted, func(k known, blog gateway.VM) {
			k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.NoLevel) })
		}, false},
		"role": {func(k known, blog gateway.VM) []string {
			_, _, err := k.people.Add(k.tb.Context(), k.ada.Mail, people.Owner)
			gatewaytest.Must(k.tb, err)
			return []string{"Cookie", k.cookie(k.opened(blog, k.ada, "8001"), "8001-blog")}
		}, func(k known, _ gateway.VM) {
			_, _, err := k.people.Add(k.tb.Context(), k.ada.Mail, people.Guest)
			gatewaytest.Must(k.tb, err)
		}, false},
		"session": {func(k known, blog gateway.VM) []string {
			k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.View) })
			phone = k.opened(blog, k.ada, "8001")
			return []string{"Cookie", k.cookie(phone, "8001-blog")}
		}, func(k known, _ gateway.VM) { k.logout(phone, "blog", "Origin", k.url("blog")) }, false},
		"session at the domain": {func(k known, blog gateway.VM) []string {
			header := k.shared(blog, k.ada, gateway.Share{Visibility: gateway.People, With: []gateway.Principal{k.ada.ID}})
			phone = k.client()
			k.loginAtRootAs(phone, k.ada)
			return header
		}, func(k known, _ gateway.VM) {
			k.form(phone, "/.lodge/account", url.Values{"do": {"log-out-everywhere"}}, "Origin", k.root())
		}, false},
		"token": {func(k known, blog gateway.VM) (header []string) {
			var held string
			held, pass = k.pass(blog, token(8001))
			return []string{"Authorization", "Bearer " + held}
		}, func(k known, blog gateway.VM) {
			gatewaytest.Must(k.tb, k.server.RemovePass(k.tb.Context(), blog.ID, pass.Kind, pass.ID))
		}, false},
		"link": {func(k known, blog gateway.VM) (header []string) {
			sharedWith(gateway.Share{Visibility: gateway.Link})(k, blog)
			var held string
			held, pass = k.pass(blog, link(8001))
			cookie := k.openLink(k.client(), held).Cookies()[0]
			return []string{"Cookie", cookie.Name + "=" + cookie.Value}
		}, func(k known, blog gateway.VM) {
			gatewaytest.Must(k.tb, k.server.RemovePass(k.tb.Context(), blog.ID, pass.Kind, pass.ID))
		}, false},
		"VM": {known.granted, func(k known, blog gateway.VM) {
			k.change(blog, func(m *gateway.VM) { m.Desired = gateway.Removed })
			gatewaytest.Must(k.tb, k.server.Remove(k.tb.Context(), blog.ID))
		}, true},
	}
}

// Whatever lets somebody in, its end ends an open stream and an open WebSocket, keeps the next request
// out, and leaves others alone. How long that takes is in the log of the test.
func TestEveryRevocationEndsWhatIsOpen(t *testing.T) {
	t.Parallel()
	for name := range revocations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row := revocations()[name] // of its own
			k := newKnown(t)
			blog := k.vm("blog")
			k.app(blog, 8001, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/page" {
					endless(w, r)
				}
			}))
			ann := k.opened(blog, k.people.Owner(), "8001")
			header := row.enter(k, blog)
			owners := k.openStream(ann, k.url("8001-blog"))
			stream, socket := k.openStreamWith(k.clientVia(k.addr, nil), k.url("8001-blog"), header...), k.openSocketWith("8001-blog.lodge.localhost", header...)
			if err := stream(); err != nil {
				t.Fatalf("before: %v", err)
			}
			begun := time.Now()
			row.revoke(k, blog)
			t.Logf("the change took %v", time.Since(begun))
			k.end("the stream", stream, begun)
			k.end("the WebSocket", socket, begun)
			if status := k.status(k.clientVia(k.addr, nil), k.url("8001-blog"), header...); status != http.StatusUnauthorized && status != http.StatusForbidden {
				t.Errorf("afterwards: %d", status)
			}
			if (owners() != nil) != row.all {
				t.Error("the owner's stream: wrong")
			}
		})
	}
}

// end waits until something has ended.
func (s *site) end(what string, ended func() error, begun time.Time) {
	s.tb.Helper()
	for range 30 { // seconds
		if ended() != nil {
			s.tb.Logf("%s ended %v after the change began", what, time.Since(begun))
			return
		}
	}
	s.tb.Errorf("%s is still open", what)
}
