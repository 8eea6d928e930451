package https_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
)

// known is a site with people: ada is in team devs, bob has an address at example.net, eve is nobody's.
type known struct {
	*site
	ada, bob, eve people.Person
	devs          people.Team
}

func newKnown(t *testing.T) known {
	t.Helper()
	k := known{site: newSite(t)}
	k.ada, k.bob, k.eve = k.person("ada@example.com"), k.person("bob@example.net"), k.person("eve@example.org")
	devs, err := k.people.ChangeTeam(t.Context(), "devs", []gateway.Principal{k.ada.ID}, nil)
	gatewaytest.Must(t, err)
	k.devs = devs
	return k
}

// opened is a client of somebody who is logged in at a VM, and at the names of its ports.
func (k known) opened(m gateway.VM, who people.Person, ports ...string) *http.Client {
	k.tb.Helper()
	c := k.client()
	k.loginAs(c, m, who)
	for _, port := range ports {
		k.handoffTo(c, port+"-"+m.Name, "/")
	}
	return c
}

// A share opens exactly its port, for exactly whom it names.
func TestSharesOpenOnePortForWhomTheyName(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	s := k.site
	blog, shop := s.vm("blog"), s.vm("shop")
	for _, port := range []uint16{80, 8001, 8002, 8003, 8004} {
		s.app(blog, port, echo(fmt.Sprint("blog", port)))
	}
	s.app(shop, 80, echo("shop"))
	s.change(blog, func(m *gateway.VM) {
		m.Shares = []gateway.Share{
			{Port: 8001, Visibility: gateway.People, With: []gateway.Principal{k.eve.ID, k.ada.ID}},
			{Port: 8002, Visibility: gateway.People, Domains: []string{"example.net"}},
			{Port: 8003, Visibility: gateway.Team, With: []gateway.Principal{k.devs.ID}},
		}
	})
	s.change(shop, func(m *gateway.VM) { m.Grants = m.WithGrant(k.bob.ID, gateway.View) })
	clients := map[string]*http.Client{
		"ada": k.opened(blog, k.ada, "8001", "8003"), "bob": k.opened(blog, k.bob, "8002"), "eve": k.opened(blog, k.eve, "8001"), "nobody": s.client(),
		"ann": k.opened(blog, s.people.Owner(), "8001", "8002", "8003", "8004"), "bob at shop": k.opened(shop, k.bob),
	}
	for who, c := range clients {
		for host, may := range map[string]string{
			"blog": "ann", "8001-blog": "ann ada eve", "8002-blog": "ann bob", "8003-blog": "ann ada", "8004-blog": "ann", "shop": "bob at shop",
		} {
			want := http.StatusUnauthorized
			if strings.Contains(may, who) {
				want = http.StatusOK
			}
			switch {
			case who == "bob" && host == "shop":
				want = http.StatusUnauthorized // his session is blog's
			case host == "blog" && (who == "ada" || who == "bob" || who == "eve"):
				want = http.StatusForbidden // where they have one
			}
			a := s.get(c, s.url(host))
			if a.StatusCode != want {
				t.Errorf("%s at %s: %s, want %d", who, host, a.Status, want)
			}
			mail := map[string]string{"ada": k.ada.Mail, "bob": k.bob.Mail, "eve": k.eve.Mail, "ann": owner, "bob at shop": k.bob.Mail}[who]
			if a.StatusCode == http.StatusOK && !strings.Contains(a.body, "X-Lodge-User: "+mail+"\r\n") {
				t.Errorf("the app at %s does not see %s:\n%s", host, mail, a.body)
			}
		}
	}
}

// Who may open a port, but not the plain name, is led to the port by a login link.
func TestLoginLeadsToWhatMayBeOpened(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog := k.vm("blog", gateway.Share{Port: 8001, Visibility: gateway.People, With: []gateway.Principal{k.ada.ID}})
	k.app(blog, 8001, echo("port"))
	c := k.client()
	link := k.linkFor(blog, k.ada)
	a := k.useLink(c, link)
	if to := a.Header.Get("Location"); to != k.url("8001-blog")+"/" {
		t.Fatalf("the login leads to %q", to)
	}
	at := a.Header.Get("Location")
	a = k.get(c, at, browser()...)
	for range 3 {
		at, a = k.follow(c, at, a)
	}
	if at, a = k.joinNames(c, at, a); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "app=port") {
		t.Errorf("%s: %s", at, a.Status)
	}
	late := k.linkFor(blog, k.ada)
	_, err := k.people.Remove(t.Context(), k.ada.Mail)
	gatewaytest.Must(t, err)
	k.person(k.ada.Mail) // the link is not hers
	if a := k.useLink(k.client(), late); a.StatusCode != http.StatusForbidden {
		t.Errorf("the link of one who is removed: %s", a.Status)
	}
}

// Whatever lets a person in, its end ends what is open and keeps the next request out.
func TestWhatIsOpenEndsWithItsPeople(t *testing.T) {
	t.Parallel()
	remove := func(t *testing.T, k known, _ gateway.VM) {
		t.Helper()
		_, err := k.people.Remove(t.Context(), k.ada.Mail)
		gatewaytest.Must(t, err)
		k.person(k.ada.Mail)
	}
	for name, tt := range map[string]struct {
		share  gateway.Visibility
		change func(*testing.T, known, gateway.VM)
	}{
		"removed from a team": {gateway.Team, func(t *testing.T, k known, _ gateway.VM) {
			t.Helper()
			_, err := k.people.ChangeTeam(t.Context(), "devs", nil, []gateway.Principal{k.ada.ID})
			gatewaytest.Must(t, err)
		}},
		"the team is removed": {gateway.Team, func(t *testing.T, k known, _ gateway.VM) {
			t.Helper()
			_, err := k.people.RemoveTeam(t.Context(), "devs")
			gatewaytest.Must(t, err)
		}},
		"the person is removed":     {gateway.People, remove},
		"removed, at a public port": {gateway.Public, remove},
		"no longer shared with": {gateway.People, func(_ *testing.T, k known, m gateway.VM) {
			k.change(m, func(m *gateway.VM) {
				m.Shares = m.WithShare(gateway.Share{Port: 8001, Visibility: gateway.People, With: []gateway.Principal{k.eve.ID}})
			})
		}},
		"no longer granted": {gateway.Private, func(_ *testing.T, k known, m gateway.VM) {
			k.change(m, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.NoLevel) })
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKnown(t)
			blog := k.vm("blog")
			k.app(blog, 8001, http.HandlerFunc(endless))
			k.change(blog, func(m *gateway.VM) {
				m.Grants = m.WithGrant(k.ada.ID, gateway.View)
				m.Grants = m.WithGrant(k.eve.ID, gateway.View)
			})
			ada, eve := k.opened(blog, k.ada, "8001"), k.opened(blog, k.eve, "8001")
			k.change(blog, func(m *gateway.VM) {
				share := gateway.Share{Port: 8001, Visibility: tt.share}
				switch tt.share {
				case gateway.Team:
					share.With = []gateway.Principal{k.devs.ID}
				case gateway.People:
					share.With = []gateway.Principal{k.ada.ID}
				}
				m.Shares = m.WithShare(share)
				if tt.share != gateway.Private {
					m.Grants = m.WithGrant(k.ada.ID, gateway.NoLevel)
				}
			})
			stream, socket := k.openStream(ada, k.url("8001-blog")), k.openSocket("8001-blog.lodge.localhost", k.cookie(ada, "8001-blog"))
			others := k.openStream(eve, k.url("8001-blog"))
			tt.change(t, k, blog)
			if stream() == nil || socket() == nil {
				t.Error("what was open still is")
			}
			if others() != nil {
				t.Error("another person's stream ended")
			}
			want := http.StatusUnauthorized
			if _, known := k.people.Person(k.ada.ID); known {
				want = http.StatusForbidden
			}
			if tt.share == gateway.Public {
				want = http.StatusOK // for a stranger
			}
			if status := k.status(ada, k.url("8001-blog")); status != want {
				t.Errorf("afterwards: %d", status)
			}
		})
	}
}

// A page on one port calls an API on another, both shared with people.
func TestPreflightBetweenSharedPorts(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	with := []gateway.Principal{k.ada.ID}
	blog := k.vm("blog", gateway.Share{Port: 3000, Visibility: gateway.People, With: with}, gateway.Share{Port: 8001, Visibility: gateway.People, With: with})
	k.app(blog, 8001, api(t))
	preflight := func() answer {
		return k.do(k.client(), http.MethodOptions, k.url("8001-blog")+"/items?id=1", nil,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type", "Origin", k.url("3000-blog"), "Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-site")
	}
	if a := preflight(); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("before a login: %s", a.Status)
	}
	k.opened(blog, k.ada, "8001")
	if a := preflight(); a.StatusCode != http.StatusOK || a.Header.Get("Access-Control-Allow-Origin") != k.url("3000-blog") {
		t.Errorf("afterwards: %s", a.Status)
	}
}

// A preflight passes only to ports that somebody in its network may open, as long as they may.
func TestPreflightNeedsSomebodyWhoMayOpenThePort(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog := k.vm("blog", gateway.Share{Port: 8001, Visibility: gateway.People, With: []gateway.Principal{k.eve.ID}},
		gateway.Share{Port: 8002, Visibility: gateway.People, With: []gateway.Principal{k.eve.ID}})
	for _, port := range []uint16{8001, 8002, 8004} {
		k.app(blog, port, echo(fmt.Sprint(port)))
	}
	k.opened(blog, k.eve, "8001")
	preflight := func(port string) int {
		return k.do(k.client(), http.MethodOptions, k.url(port+"-blog")+"/", nil, "Origin", k.url("8001-blog"), "Access-Control-Request-Method", "PUT").StatusCode
	}
	if preflight("8002") != http.StatusOK || preflight("8004") != http.StatusUnauthorized {
		t.Errorf("to a shared port: %d; to a private one: %d", preflight("8002"), preflight("8004"))
	}
	_, err := k.people.Remove(t.Context(), k.eve.Mail)
	gatewaytest.Must(t, err)
	if got := preflight("8002"); got != http.StatusUnauthorized {
		t.Errorf("after the person's removal: %d", got)
	}
}

func BenchmarkDecision(b *testing.B) {
	s := newSite(b)
	blog, open := s.vm("blog"), s.vm("open", public(0)...)
	c := s.client()
	s.login(c, blog)
	private := httptest.NewRequestWithContext(b.Context(), http.MethodGet, s.url("blog")+"/", nil)
	for _, cookie := range c.Jar.Cookies(mustParse(b, s.url("blog"))) {
		private.AddCookie(cookie)
	}
	stranger := httptest.NewRequestWithContext(b.Context(), http.MethodGet, s.url(open.Name)+"/", nil)
	for name, r := range map[string]*http.Request{"session": private, "public": stranger} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !s.server.Decides(r) {
					b.Fatal("not allowed")
				}
			}
		})
	}
}

// A request with a session is decided without an allocation more than one to a public port.
func TestDecisionWithASessionAllocatesNothing(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	s.vm("open", public(0)...)
	c := s.client()
	s.login(c, blog)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, s.url("blog")+"/", nil)
	for _, cookie := range c.Jar.Cookies(mustParse(t, s.url("blog"))) {
		r.AddCookie(cookie)
	}
	open := httptest.NewRequestWithContext(t.Context(), http.MethodGet, s.url("open")+"/", nil)
	allowed := true
	private := testing.AllocsPerRun(1000, func() { allowed = s.server.Decides(r) && allowed })
	public := testing.AllocsPerRun(1000, func() { allowed = s.server.Decides(open) && allowed })
	if !allowed || private > public {
		t.Errorf("%v allocations, %v for a public port; allowed: %t", private, public, allowed)
	}
}

// A second login in a browser ends the first one, at all names of the VM.
func TestSecondLoginEndsTheFirst(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog := k.vm("blog")
	k.app(blog, 8001, echo("8001"))
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.View) })
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.eve.ID, gateway.View) })
	c := k.opened(blog, k.ada, "8001")
	adas := k.cookie(c, "8001-blog")
	k.loginAs(c, blog, k.eve)
	if a := k.get(k.client(), k.url("8001-blog"), "Cookie", adas); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the first person's session: %s", a.Status)
	}
}

// A code of one who is removed starts no session, and records none.
func TestHandoffOfARemovedPerson(t *testing.T) {
	t.Parallel()
	k := newKnown(t)
	blog := k.vm("blog")
	k.app(blog, 8001, echo("8001"))
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.View) })
	c := k.opened(blog, k.ada)
	target := k.url("8001-blog") + "/"
	a := k.get(c, target, browser()...)
	target, a = k.follow(c, target, a) // the handoff
	back, err := mustParse(t, target).Parse(a.Header.Get("Location"))
	gatewaytest.Must(t, err)
	k.change(blog, func(m *gateway.VM) { m.Grants = m.WithGrant(k.ada.ID, gateway.NoLevel) })
	if a := k.get(c, back.String(), browser()...); a.StatusCode == http.StatusSeeOther || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("the callback: %s, %v", a.Status, a.Header["Set-Cookie"])
	}
}
