package https_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
)

// browser are the headers of a person opening a page by its address.
func browser(more ...string) []string {
	return append([]string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document", "Accept", "text/html,*/*"}, more...)
}

func TestWhoMayOpenWhat(t *testing.T) {
	s := newSite(t)
	blog, shop := s.vm("blog", public(8080)...), s.vm("shop")
	for _, port := range []uint16{80, 8080, 9090} {
		s.app(blog, port, echo(fmt.Sprint("blog", port)))
		s.app(shop, port, echo(fmt.Sprint("shop", port)))
	}
	ownerOfBlog := s.client()
	s.login(ownerOfBlog, blog)
	blogTap, shopTap := s.tap(blog), s.tap(shop)
	tests := []struct {
		who    string
		client *http.Client
		host   string
		want   int
	}{
		{"stranger", s.client(), "blog", 401},
		{"stranger", s.client(), "any.blog", 401},
		{"stranger", s.client(), "8080-blog", 200},
		{"stranger", s.client(), "9090-blog", 401},
		{"stranger", s.client(), "80-blog", 401},
		{"owner", ownerOfBlog, "blog", 200},
		{"owner, not yet at this name", ownerOfBlog, "9090-blog", 401},
		{"owner, without a session there", ownerOfBlog, "shop", 401},
		{"blog", blogTap, "blog", 200},
		{"blog", blogTap, "9090-blog", 200},
		{"blog", blogTap, "any.blog", 200},
		{"blog", blogTap, "shop", 403},
		{"blog", blogTap, "9090-shop", 403},
		{"shop", shopTap, "8080-blog", 200},
		{"shop", shopTap, "blog", 403},
		{"shop", shopTap, "80-blog", 403},
		{"shop", shopTap, "shop", 200},
	}
	for _, tt := range tests {
		if a := s.get(tt.client, s.url(tt.host)); a.StatusCode != tt.want {
			t.Errorf("%s at %s: %s, want %d: %s", tt.who, tt.host, a.Status, tt.want, a.body)
		}
	}
	if a := s.get(shopTap, s.url("8080-blog")); !strings.Contains(a.body, "X-Lodge-Vm: shop\r\n") {
		t.Errorf("blog does not see who calls:\n%s", a.body)
	}
}

func TestLinkWorksOnceAmongMany(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	s.app(blog, 80, echo("blog"))
	link := s.link(blog)
	for range 3 { // a GET does not use the link
		if a := s.get(s.client(), link, browser()...); a.StatusCode != 200 || !strings.Contains(a.body, "<form method=\"post\"") {
			t.Fatalf("the link's page: %s: %s", a.Status, a.body)
		}
	}
	var in atomic.Int32
	var clicking sync.WaitGroup
	for range 16 {
		c := s.client()
		clicking.Go(func() {
			switch a := s.useLink(c, link); a.StatusCode {
			case http.StatusSeeOther:
				in.Add(1)
				if a := s.get(c, s.url("blog")); a.StatusCode != 200 {
					t.Errorf("logged in, but %s", a.Status)
				}
			case http.StatusForbidden:
			default:
				t.Errorf("%s: %s", a.Status, a.body)
			}
		})
	}
	clicking.Wait()
	if in.Load() != 1 {
		t.Errorf("%d logins by one link", in.Load())
	}
}

func TestSessionCountsAtItsOwnNameOnly(t *testing.T) {
	s := newSite(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	for _, m := range []gateway.VM{blog, shop} {
		s.app(m, 80, echo(m.Name))
	}
	c := s.client()
	a := s.useLink(c, s.link(blog))
	cookie := a.Cookies()[0]
	if raw := a.Header.Get("Set-Cookie"); cookie.Name != "__Host-lodge" || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode ||
		cookie.Path != "/" || cookie.Domain != "" || cookie.MaxAge != 30*24*3600 {
		t.Errorf("Set-Cookie: %s", raw)
	}
	for host, want := range map[string]int{"blog": 200, "shop": 401, "8080-blog": 401, "any.blog": 401} {
		if a := s.get(s.client(), s.url(host), "Cookie", "__Host-lodge="+cookie.Value); a.StatusCode != want {
			t.Errorf("the session of blog at %s: %s, want %d", host, a.Status, want)
		}
	}
	for _, forged := range []string{"", "x", strings.Repeat("A", 43), cookie.Value + "A", cookie.Value[:42]} {
		if a := s.get(s.client(), s.url("blog"), "Cookie", "__Host-lodge="+forged); a.StatusCode != 401 {
			t.Errorf("session %q: %s", forged, a.Status)
		}
	}
	// A link for one VM is nothing at another.
	link := strings.Replace(s.link(blog), "//blog.", "//shop.", 1)
	if a := s.useLink(s.client(), link); a.StatusCode != http.StatusForbidden {
		t.Errorf("blog's link at shop: %s", a.Status)
	}
}

func TestSessionDiesWithItsVM(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	c := s.client()
	s.login(c, blog)
	if _, err := s.dir.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Desired = gateway.Removed; return nil }); err != nil {
		t.Fatal(err)
	}
	again := s.vm("blog")
	s.app(again, 80, echo("new"))
	if a := s.get(c, s.url("blog")); a.StatusCode != 401 {
		t.Errorf("the old blog's session at the new blog: %s", a.Status)
	}
	if err := s.server.Remove(t.Context(), blog.ID); err != nil {
		t.Fatal(err)
	}
	cookie, err := base64.RawURLEncoding.DecodeString(c.Jar.Cookies(mustParse(t, s.url("blog")))[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.logins.LookSecret(t.Context(), gateway.SecretKey{Kind: "session", Hash: sha256.Sum256(cookie)}, time.Now()); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("the session is still stored: %v", err)
	}
	if _, err := s.server.LoginURL(t.Context(), blog.ID, s.people.Owner().ID); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("a link for a VM that is gone: %v", err)
	}
}

func TestLinkAndSessionExpire(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	link := s.link(blog)
	s.logins.ahead.Store(int64(15 * time.Minute))
	if a := s.useLink(s.client(), link); a.StatusCode != http.StatusForbidden {
		t.Errorf("after 15 minutes: %s", a.Status)
	}
	s.logins.ahead.Store(0)
	c := s.client()
	s.login(c, blog)
	s.logins.ahead.Store(int64(30 * 24 * time.Hour))
	if a := s.get(c, s.url("blog")); a.StatusCode != 401 {
		t.Errorf("after 30 days: %s", a.Status)
	}
}

func TestWhoMayOpenNothingGetsNoLink(t *testing.T) {
	s := newSite(t)
	blog, eve := s.vm("blog"), s.person("eve@example.org")
	for _, who := range []gateway.Principal{eve.ID, 0, 999} {
		if _, err := s.server.LoginURL(t.Context(), blog.ID, who); gateway.KindOf(err) != gateway.KindDenied {
			t.Errorf("%d: %v", who, err)
		}
	}
}

// follow follows one redirect, as a browser does.
func (s *site) follow(c *http.Client, from string, a answer) (string, answer) {
	s.tb.Helper()
	base, err := url.Parse(from)
	if err != nil {
		s.tb.Fatal(err)
	}
	to, err := base.Parse(a.Header.Get("Location"))
	if err != nil {
		s.tb.Fatal(err)
	}
	return to.String(), s.get(c, to.String(), browser()...)
}

func TestLoginCarriesToOtherNamesOfTheVM(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	s.app(blog, 80, echo("plain"))
	s.app(blog, 8080, echo("port"))
	c := s.client()
	s.login(c, blog)
	for host, app := range map[string]string{"8080-blog": "port", "any.blog": "plain"} {
		at := s.url(host) + "/deep/page?x=1&y=%2F"
		a := s.get(c, at, browser()...)
		for range 3 {
			at, a = s.follow(c, at, a)
		}
		at, a = s.joinNames(c, at, a)
		if a.StatusCode != 200 || !strings.Contains(a.body, "app="+app) || !strings.Contains(a.body, "uri=/deep/page?x=1&y=%2F") {
			t.Errorf("%s: %s at %s: %s", host, a.Status, at, a.body)
		}
		if a := s.get(c, s.url(host)); a.StatusCode != 200 {
			t.Errorf("%s afterwards, for a program: %s", host, a.Status)
		}
	}
}

func TestHandoffHelpsNobodyElse(t *testing.T) {
	s := newSite(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	s.app(blog, 8080, echo("port"))
	s.app(shop, 80, echo("shop"))
	c := s.client()
	s.login(c, blog)
	at := s.url("8080-blog") + "/"
	start := s.get(c, at, browser()...)

	// A stranger redirected to the plain name, and to the domain, gets a page there, not a loop.
	forgetful := s.clientVia(s.addr, nil) // keeps no cookies
	for _, stranger := range []*http.Client{s.client(), forgetful} {
		for _, host := range []string{"blog", "8080-blog", "none", "8080-none"} {
			if a := s.through(stranger, s.url(host)+"/"); a.StatusCode != 401 {
				t.Errorf("stranger at %s: %s", host, a.Status)
			}
		}
	}
	// The code works once, in the browser and at the name that started the handoff.
	handoffAt, handoff := s.follow(c, at, start)
	callback := handoff.Header.Get("Location")
	if a := s.get(s.client(), callback, browser()...); a.StatusCode != 403 {
		t.Errorf("another browser: %s", a.Status)
	}
	if a := s.get(s.client(), callback, browser("Cookie", "__Host-lodge-handoff="+strings.Repeat("A", 43))...); a.StatusCode != 403 {
		t.Errorf("another browser with a cookie of its own: %s", a.Status)
	}
	if _, a := s.follow(c, handoffAt, handoff); a.StatusCode != 403 {
		t.Errorf("the code was used up by another browser, then: %s", a.Status)
	}
	// Redirects lead to names of the VM only.
	query := "&for=" + strings.Repeat("0", 64) + "&path=/"
	for _, to := range []string{
		"evil.example", "shop.lodge.localhost", "8080-shop.lodge.localhost", "lodge.localhost", "blog.lodge.localhost", "",
		"8080-blog.lodge.localhost.evil.example", "8080-blog.lodge.localhost@evil.example", "blog.lodge.internal", "8080-blog.lodge.internal",
	} {
		if a := s.get(c, s.url("blog")+"/.lodge/handoff?to="+url.QueryEscape(to)+query, browser()...); a.StatusCode != 404 || a.Header.Get("Location") != "" {
			t.Errorf("handoff to %q: %s to %q", to, a.Status, a.Header.Get("Location"))
		}
	}
	for _, path := range []string{"//evil.example/", "https://evil.example/", "/\\evil.example", "\\\\evil.example", "evil", "", "/\t/evil.example", "javascript:alert(1)"} {
		if a := s.handoffTo(c, "8080-blog", path); a.Header.Get("Location") != "/" {
			t.Errorf("path %q leads to %q", path, a.Header.Get("Location"))
		}
	}
}

// handoffTo completes a handoff with a path of the caller's choice, and returns the last redirect.
func (s *site) handoffTo(c *http.Client, host, path string) answer {
	s.tb.Helper()
	fresh := s.client()
	fresh.Jar = c.Jar
	at := s.url(host) + "/"
	for _, cookie := range c.Jar.Cookies(mustParse(s.tb, at)) { // start logged out at this name
		c.Jar.SetCookies(mustParse(s.tb, at), []*http.Cookie{{Name: cookie.Name, Value: "", Path: "/", MaxAge: -1, Secure: true}})
	}
	a := s.get(fresh, at, browser()...)
	handoff := mustParse(s.tb, a.Header.Get("Location"))
	query := handoff.Query()
	query.Set("path", path)
	handoff.RawQuery = query.Encode()
	a = s.get(fresh, handoff.String(), browser()...)
	_, a = s.follow(fresh, handoff.String(), a)
	return a
}

func mustParse(tb testing.TB, s string) *url.URL {
	tb.Helper()
	u, err := url.Parse(s)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// TestPagesOfOtherVMsCannotUseTheSession: all VMs are "same site", so SameSite cookies alone would
// allow it.
func TestPagesOfOtherVMsCannotUseTheSession(t *testing.T) {
	s := newSite(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	s.app(blog, 80, echo("blog"))
	s.app(shop, 80, echo("shop"))
	c := s.client()
	s.login(c, blog)
	_, port, _ := strings.Cut(s.addr, ":")
	s.joinNames(c, s.url("blog"), s.get(c, s.url("blog")+"/", browser()...))
	evil, friend, self := "https://shop.lodge.localhost:"+port, "https://8080-blog.lodge.localhost:"+port, "https://blog.lodge.localhost:"+port
	tests := []struct {
		name, method string
		header       []string
		want         int
	}{
		{"a form of another VM", "POST", []string{"Origin", evil, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 403},
		{"a script of another VM", "GET", []string{"Origin", evil, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"}, 403},
		{"an image in another VM's page", "GET", []string{"Referer", evil + "/", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 403},
		{"the same without a referrer", "GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"}, 403},
		{"a frame", "GET", []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		{"a sandboxed page", "POST", []string{"Origin", "null", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"}, 403},
		{"an older browser", "POST", []string{"Origin", "https://evil.example"}, 403},
		{"a link", "GET", browser("Sec-Fetch-Site", "cross-site")[2:], 200},
		{"a script of another port", "POST", []string{"Origin", friend, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors"}, 200},
		{"its own script", "POST", []string{"Origin", self, "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, 200},
		{"no browser", "POST", nil, 200},
	}
	for _, tt := range tests {
		if a := s.do(c, tt.method, s.url("blog")+"/", nil, tt.header...); a.StatusCode != tt.want {
			t.Errorf("%s: %s, want %d", tt.name, a.Status, tt.want)
		}
	}
	// Another page cannot submit a login link of its author, to log a visitor in as someone else.
	form := strings.NewReader("token=" + mustParse(t, s.link(blog)).Query().Get("token"))
	if a := s.do(s.client(), "POST", s.url("blog")+"/.lodge/login", form, "Origin", evil, "Content-Type", "application/x-www-form-urlencoded"); a.StatusCode != 403 {
		t.Errorf("login from another page: %s", a.Status)
	}
}
