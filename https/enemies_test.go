package https_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/https"
	"lodge/https/login/oidc"
	"lodge/https/login/oidc/oidctest"
	"lodge/https/names"
)

// apexLink is a link to the domain itself.
func (s *site) apexLink(who people.Person) string {
	s.tb.Helper()
	link, err := s.server.LoginURL(s.tb.Context(), gateway.ID{}, who.ID)
	gatewaytest.Must(s.tb, err)
	return link
}

// A link to the domain is opened by many browsers at once, and one too late: one gets in.
func TestALinkToTheDomainWorksOnceAndInTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	link := s.apexLink(s.people.Owner())
	var in, out atomic.Int32
	var clicking sync.WaitGroup
	for range 8 {
		c := s.client()
		clicking.Go(func() {
			switch a := s.useLink(c, link); a.StatusCode {
			case http.StatusSeeOther:
				in.Add(1)
			case http.StatusForbidden:
				out.Add(1)
			}
		})
	}
	clicking.Wait()
	if in.Load() != 1 || out.Load() != 7 {
		t.Errorf("%d logins by one link, %d refused", in.Load(), out.Load())
	}
	late := s.apexLink(s.people.Owner())
	s.logins.ahead.Store(int64(15 * time.Minute))
	if a := s.useLink(s.client(), late); a.StatusCode != http.StatusForbidden || len(a.Cookies()) != 0 {
		t.Errorf("after 15 minutes: %s", a.Status)
	}
}

// A link to a port opens nothing after its end, nor does what it has let in.
func TestALinkToAPortEnds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog", byLink(8001)...)
	s.app(blog, 8001, echo("8001"))
	held, _ := s.pass(blog, link(8001)) // for an hour
	c := s.client()
	if a := s.openLink(c, held); a.StatusCode != http.StatusSeeOther {
		t.Fatalf("in its time: %s", a.Status)
	}
	s.logins.ahead.Store(int64(time.Hour + time.Second))
	if a := s.openLink(s.client(), held); a.StatusCode != http.StatusForbidden {
		t.Errorf("after its end: %s", a.Status)
	}
	fresh := s.restarted() // which has cached nothing
	cookie := c.Jar.Cookies(mustParse(t, s.url("8001-blog")))[0]
	if status := fresh.status(fresh.client(), fresh.url("8001-blog"), "Cookie", cookie.Name+"="+cookie.Value); status != http.StatusUnauthorized {
		t.Errorf("what it has let in: %d", status)
	}
}

var onward = regexp.MustCompile(`href="([^"]+)">Open it`)

// A provider that is gone ends no login: who came by it stays, at the domain and at VMs, and gets to
// more of them.
func TestLoginsOutliveTheirProvider(t *testing.T) {
	t.Parallel()
	var provider *oidctest.Provider
	s := newSite(t, func(c *https.Config) {
		provider = oidctest.Start(t, names.Origin(c.Domain, c.Port)+oidc.CallbackPath("zitadel"))
		c.LoginProviders = []oidc.Provider{{Name: "zitadel", Issuer: provider.Issuer, ClientID: provider.ClientID, Secret: provider.Secret}}
	})
	blog, shop := s.vm("blog"), s.vm("shop")
	s.app(blog, 80, echo("blog"))
	s.app(shop, 80, echo("shop"))
	ann := s.client()
	a := s.form(ann, "/.lodge/oidc/zitadel", url.Values{"to": {s.url("blog") + "/wanted"}}, "Origin", s.root())
	at := onward.FindStringSubmatch(a.body)
	if a.StatusCode != http.StatusOK || at == nil {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	back := provider.Login(t, html.UnescapeString(at[1]), "ann")
	a = s.followAll(ann, back.String())
	if a.StatusCode != http.StatusOK || !strings.Contains(a.body, "uri=/wanted\n") || !strings.Contains(a.body, "X-Lodge-User: "+owner) {
		t.Fatalf("logged in: %s: %s", a.Status, a.body)
	}
	provider.Stop()
	for _, host := range []string{"blog", "shop"} {
		if a := s.followAll(ann, s.url(host)+"/"); a.StatusCode != http.StatusOK || !strings.Contains(a.body, "app="+host) {
			t.Errorf("%s without the provider: %s", host, a.Status)
		}
	}
	if all := s.sessions(ann); len(all) != 1 || all[0].Way != "zitadel" {
		t.Errorf("the logins: %+v", all)
	}
	s.loginAtRoot(s.client()) // another way
}

// What people are called is text, on pages and in headers; somebody who looks like another person is
// another person.
func TestNamesOfPeopleAreText(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	sons, ada, alike := s.person("o'neil&sons{{.}}@example.com"), s.person("ada@example.com"), s.person("ada@ex\u0430mple.com")
	blog := s.vm("blog")
	s.change(blog, func(m *gateway.VM) {
		m.Grants = []gateway.Grant{{To: sons.ID, Level: gateway.View}, {To: ada.ID, Level: gateway.View}}
	})
	s.app(blog, 80, echo("blog"))
	c := s.client()
	s.loginAtRootAs(c, sons)
	key := gateway.Passkey{ID: []byte("a key"), Person: sons.ID, Name: "phone", Created: time.Now()}
	gatewaytest.Must(t, s.db.Passkeys().AddPasskey(t.Context(), key))
	rename := func(name string) answer {
		return s.form(c, "/.lodge/account", url.Values{"do": {"rename-passkey"}, "id": {"YSBrZXk"}, "name": {name}}, "Origin", s.root())
	}
	for name, want := range map[string]int{
		"<script>alert(1)</script>": http.StatusSeeOther, strings.Repeat("a", 300): http.StatusBadRequest, "a\nb": http.StatusBadRequest, "a\u202eb": http.StatusBadRequest,
	} {
		if a := rename(name); a.StatusCode != want {
			t.Errorf("a passkey named %q: %s", name, a.Status)
		}
	}
	a := s.get(c, s.root()+"/.lodge/account", browser()...)
	if a.StatusCode != http.StatusOK || strings.Contains(a.body, "<script>alert") || !strings.Contains(a.body, "&lt;script&gt;alert(1)") || !strings.Contains(a.body, "o&#39;neil&amp;sons{{.}}@example.com") {
		t.Errorf("the account: %s: %s", a.Status, a.body)
	}
	if a := s.followAll(c, s.url("blog")+"/"); !strings.Contains(a.body, "X-Lodge-User: o'neil&sons{{.}}@example.com\r\n") {
		t.Errorf("the app sees %s: %s", a.Status, a.body)
	}
	c = s.client()
	s.loginAtRootAs(c, alike)
	if a := s.followAll(c, s.url("blog")+"/"); a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, "ada@xn--exmple-4nf.com") {
		t.Errorf("who looks like Ada: %s: %s", a.Status, a.body)
	}
}
