package https_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/https/login/apex"
)

// root is the URL of the domain itself.
func (s *site) root() string { return strings.Replace(s.url("x"), "//x.", "//", 1) }

// form posts a form of the domain's own pages.
func (s *site) form(c *http.Client, path string, values url.Values, header ...string) answer {
	s.tb.Helper()
	header = append(header, "Content-Type", "application/x-www-form-urlencoded", "Accept", "text/html")
	return s.do(c, http.MethodPost, s.root()+path, strings.NewReader(values.Encode()), header...)
}

// loginAtRoot logs c in at the domain by a fresh link.
func (s *site) loginAtRoot(c *http.Client) {
	s.tb.Helper()
	s.loginAtRootAs(c, s.people.Owner())
}

func (s *site) loginAtRootAs(c *http.Client, who people.Person) {
	s.tb.Helper()
	link, err := s.server.LoginURL(s.tb.Context(), gateway.ID{}, who.ID)
	gatewaytest.Must(s.tb, err)
	if a := s.useLink(c, link); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/.lodge/account" {
		s.tb.Fatalf("login: %s: %s", a.Status, a.body)
	}
}

// through follows the redirects of a browser from target on.
func (s *site) through(c *http.Client, target string) answer {
	s.tb.Helper()
	a := s.get(c, target, browser()...)
	for range 10 {
		if a.StatusCode/100 != 3 {
			return a
		}
		target, a = s.follow(c, target, a)
	}
	s.tb.Fatalf("too many redirects: %s", target)
	return a
}

// sessions are those of the person whom c is logged in as.
func (s *site) sessions(c *http.Client) (all []apex.Shown) {
	s.tb.Helper()
	a := s.get(c, s.root()+"/.lodge/sessions")
	if a.StatusCode == http.StatusOK {
		gatewaytest.Must(s.tb, json.Unmarshal([]byte(a.body), &all))
	}
	return all
}

var loginLink = regexp.MustCompile(`href="(https://lodge\.localhost[^"]*/\.lodge/login[^"]*)">Log in`)

// A login at the domain opens all VMs, at once or from the page for who may see nothing, at the path
// that was wanted; each name gets a cookie of its own.
func TestLoginAtTheDomainOpensAllVMs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	s.app(blog, 80, echo("blog"))
	s.app(blog, 9090, echo("blog9090"))
	s.app(shop, 80, echo("shop"))
	ann := s.client()
	s.loginAtRoot(ann)
	for host, want := range map[string]string{"blog": "app=blog\n", "shop": "app=shop\n", "9090-blog": "app=blog9090\n", "any.shop": "app=shop\n"} {
		opens := func(how string, a answer) {
			t.Helper()
			if a.StatusCode != http.StatusOK || !strings.Contains(a.body, want) || !strings.Contains(a.body, "uri=/x?y=1") || !strings.Contains(a.body, "X-Lodge-User: "+owner) {
				t.Errorf("%s %s: %s: %s", host, how, a.Status, a.body)
			}
		}
		c := s.client()
		a := s.through(c, s.url(host)+"/x?y=1")
		link := loginLink.FindStringSubmatch(a.body)
		if a.StatusCode != http.StatusUnauthorized || link == nil {
			t.Fatalf("%s before: %s: %s", host, a.Status, a.body)
		}
		s.loginAtRoot(c)
		opens("by the link", s.followAll(c, strings.ReplaceAll(link[1], "&amp;", "&")))
		c = s.client()
		s.loginAtRoot(c)
		opens("at once", s.followAll(c, s.url(host)+"/x?y=1"))
	}
	if a := s.get(s.client(), s.url("blog")+"/", "Cookie", s.cookieOf(ann, s.root())); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the domain's cookie at a VM: %s", a.Status)
	}
	s.through(ann, s.root()+"/.lodge/login?"+url.Values{"to": {s.url("blog") + "/"}}.Encode())
	if a := s.get(s.client(), s.root()+"/.lodge/account", "Cookie", s.cookie(ann, "blog")); a.StatusCode != http.StatusFound {
		t.Errorf("a VM's cookie at the domain: %s", a.Status)
	}
	if a := s.get(s.tap(blog), s.root()+"/.lodge/login"); a.StatusCode != http.StatusNotFound {
		t.Errorf("a VM at the login: %s", a.Status)
	}
}

// cookieOf is the session cookie of c at a URL.
func (s *site) cookieOf(c *http.Client, at string) string {
	s.tb.Helper()
	for _, cookie := range c.Jar.Cookies(mustParse(s.tb, at)) {
		if cookie.Name == "__Host-lodge" {
			return cookie.Name + "=" + cookie.Value
		}
	}
	s.tb.Fatal("no session cookie")
	return ""
}

// What is open by a login ends with it within a second: by the list, by a logout at a VM, everywhere.
func TestWhatIsOpenEndsWithTheLoginAtTheDomain(t *testing.T) {
	t.Parallel()
	end := func(values ...string) func(*site, *http.Client, string) answer {
		return func(s *site, c *http.Client, id string) answer {
			form := url.Values{"do": {values[0]}}
			if len(values) > 1 {
				form.Set("id", id)
			}
			return s.form(c, "/.lodge/account", form, "Origin", s.root())
		}
	}
	for name, tt := range map[string]struct {
		end           func(s *site, phone *http.Client, id string) answer // by the phone, with the laptop's ID
		laptop, phone bool                                                // still open
		byLink        bool                                                // a login at the VM alone
	}{
		"the other one ended": {end("end-session", "id"), false, true, true},
		"logged out":          {end("log-out"), true, false, true},
		"everywhere":          {end("log-out-everywhere"), false, false, false},
		"logged out at a VM": {func(s *site, c *http.Client, _ string) answer {
			return s.logout(c, "blog", "Origin", s.url("blog"))
		}, true, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			blog := s.vm("blog", public(8080)...)
			s.app(blog, 80, http.HandlerFunc(endless))
			s.app(blog, 8080, http.HandlerFunc(endless))
			laptop, phone, byLink := s.client(), s.client(), s.client()
			s.login(byLink, blog)
			for _, c := range []*http.Client{laptop, phone} {
				s.loginAtRoot(c)
				s.enter(c, "blog")
			}
			var id string
			for _, one := range s.sessions(phone) {
				if !one.This {
					id = one.ID
				}
			}
			streams := map[string]func() error{
				"laptop": s.openStream(laptop, s.url("blog")), "phone": s.openStream(phone, s.url("blog")),
				"by link": s.openStream(byLink, s.url("blog")), "stranger": s.openStream(s.client(), s.url("8080-blog")),
				"WebSocket": s.openSocket("blog.lodge.localhost", s.cookieOf(laptop, s.url("blog"))),
			}
			kept := s.cookieOf(laptop, s.root())
			if a := tt.end(s, phone, id); a.StatusCode/100 > 3 {
				t.Fatalf("%s: %s", a.Status, a.body)
			}
			open := map[string]bool{"laptop": tt.laptop, "WebSocket": tt.laptop, "phone": tt.phone, "by link": tt.byLink, "stranger": true}
			for who, ended := range streams {
				if err := ended(); (err == nil) != open[who] {
					t.Errorf("%s: %v, want open: %t", who, err, open[who])
				}
			}
			for who, c := range map[string]*http.Client{"laptop": laptop, "phone": phone, "by link": byLink} {
				if got := s.status(c, s.url("blog")); (got == http.StatusOK) != open[who] {
					t.Errorf("%s afterwards: %d", who, got)
				}
			}
			if a := s.get(s.client(), s.root()+"/.lodge/sessions", "Cookie", kept); (a.StatusCode == http.StatusOK) != tt.laptop {
				t.Errorf("the laptop's cookie: %s", a.Status)
			}
		})
	}
}

// enter opens a VM's page by the login at the domain.
func (s *site) enter(c *http.Client, host string) {
	s.tb.Helper()
	target := s.root() + "/.lodge/login?" + url.Values{"to": {s.url(host) + "/"}}.Encode()
	for range 4 { // login, enter, handoff, callback
		a := s.get(c, target, browser()...)
		to, err := mustParse(s.tb, target).Parse(a.Header.Get("Location"))
		if err != nil || a.StatusCode/100 != 3 {
			s.tb.Fatalf("%s: %s", target, a.Status)
		}
		target = to.String()
	}
}

// Whatever a link to the login contains, a browser stays on the host's names.
func TestLoginLeadsNowhereElse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.vm("blog")
	ann := s.client()
	s.loginAtRoot(ann)
	port := mustParse(t, s.root()).Port()
	for _, to := range []string{
		"", "/", "//evil.example/", "https://evil.example/", "https://blog.lodge.localhost.evil.example/", "https://evil.example\\@blog.lodge.localhost/",
		"https://blog.lodge.localhost@evil.example/", "http://blog.lodge.localhost/", "javascript:alert(1)", "https:/blog.lodge.localhost", "https:blog.lodge.localhost",
		"https://blog.lodge.internal/", "https://lodge.localhost/", "https://blog.lodge.localhost:1@evil.example/", "\thttps://evil.example", "https://%65vil.example/",
		"https://blog.lodge.localhost/" + strings.Repeat("x", 3000),
	} {
		for path, name := range map[string]string{"/.lodge/login": "to", "/.lodge/handoff": "to"} {
			query := url.Values{name: {to}, "path": {to}, "for": {strings.Repeat("0", 64)}}
			a := s.get(ann, s.root()+path+"?"+query.Encode(), browser()...)
			if location := a.Header.Get("Location"); location != "" && location != "/.lodge/account" {
				t.Errorf("%s?to=%.80q leads to %.80q", path, to, location)
			}
			a = s.get(s.client(), s.root()+path+"?"+query.Encode(), browser()...)
			if location := a.Header.Get("Location"); location != "" && location != "/.lodge/login" || strings.Contains(a.body, `name="to" value="`+to) && to != "" {
				t.Errorf("a stranger: %s?to=%.80q leads to %.80q", path, to, location)
			}
		}
	}
	for to, want := range map[string]string{
		"https://blog.lodge.localhost/a%2f?b=//c":    "https://blog.lodge.localhost:" + port + "/.lodge/enter?path=" + url.QueryEscape("/a%2f?b=//c"),
		"https://blog.lodge.localhost:1/":            "https://blog.lodge.localhost:" + port + "/.lodge/enter?path=%2F",
		"https://blog.lodge.localhost/.lodge/logout": "https://blog.lodge.localhost:" + port + "/.lodge/enter?path=%2F",
		"https://blog.lodge.localhost//evil.example": "https://blog.lodge.localhost:" + port + "/.lodge/enter?path=%2F",
		"https://none.lodge.localhost/":              "https://none.lodge.localhost:" + port + "/.lodge/enter?path=%2F", // as if it existed
	} {
		if a := s.get(ann, s.root()+"/.lodge/login?"+url.Values{"to": {to}}.Encode(), browser()...); a.Header.Get("Location") != want {
			t.Errorf("%s leads to %s", to, a.Header.Get("Location"))
		}
	}
	a := s.through(ann, s.root()+"/.lodge/login?to="+url.QueryEscape("https://none.lodge.localhost/"))
	if a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, "Nothing here that you may see") {
		t.Errorf("a VM that does not exist: %s: %s", a.Status, a.body)
	}
}

// Nothing changes by a GET, nor by a page elsewhere.
func TestLoginAtTheDomainIsItsOwnPagesAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.vm("blog")
	ann := s.client()
	s.loginAtRoot(ann)
	link, err := s.server.LoginURL(t.Context(), gateway.ID{}, s.people.Owner().ID)
	gatewaytest.Must(t, err)
	token := mustParse(t, link).Query().Get("token")
	everywhere := url.Values{"do": {"log-out-everywhere"}}
	for name, header := range map[string][]string{
		"a VM's page": {"Origin", s.url("blog"), "Sec-Fetch-Site", "same-site"}, "another site": {"Origin", "https://evil.example"},
		"a sandbox": {"Origin", "null"}, "without its origin": {"Sec-Fetch-Site", "same-site"},
	} {
		if a := s.form(ann, "/.lodge/account", everywhere, header...); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s logs out: %s", name, a.Status)
		}
		if a := s.form(s.client(), "/.lodge/login", url.Values{"token": {token}}, header...); a.StatusCode != http.StatusForbidden || len(a.Cookies()) > 0 {
			t.Errorf("%s logs in: %s", name, a.Status)
		}
	}
	for range 3 {
		if a := s.get(s.client(), link, browser()...); a.StatusCode != http.StatusOK || len(a.Cookies()) > 0 || !strings.Contains(a.body, token) {
			t.Errorf("the link's page: %s", a.Status)
		}
	}
	s.get(ann, s.root()+"/.lodge/account?"+everywhere.Encode(), browser()...)
	if len(s.sessions(ann)) != 1 {
		t.Error("a GET ended the session")
	}
	phone := s.client()
	if a := s.useLink(phone, link); a.StatusCode != http.StatusSeeOther || len(s.sessions(ann)) != 2 {
		t.Errorf("the link: %s", a.Status)
	}
	if a := s.useLink(s.client(), link); a.StatusCode != http.StatusForbidden {
		t.Errorf("the link again: %s", a.Status)
	}
	for _, host := range []string{"blog", "none"} { // a link to the domain, at a VM's name and at that of none
		link, err := s.server.LoginURL(t.Context(), gateway.ID{}, s.people.Owner().ID)
		gatewaytest.Must(t, err)
		if a := s.useLink(s.client(), strings.Replace(link, "//", "//"+host+".", 1)); a.StatusCode != http.StatusForbidden {
			t.Errorf("the domain's link at %s: %s", host, a.Status)
		}
	}
	if a := s.useLink(s.client(), strings.Replace(s.link(s.vm("shop")), "//shop.", "//", 1)); a.StatusCode != http.StatusForbidden {
		t.Errorf("a VM's link at the domain: %s", a.Status)
	}
	if a := s.useLink(phone, func() string { l, _ := s.server.LoginURL(t.Context(), gateway.ID{}, s.people.Owner().ID); return l }()); a.StatusCode != http.StatusSeeOther || len(s.sessions(ann)) != 2 {
		t.Errorf("a second login of the same browser: %s, %d sessions", a.Status, len(s.sessions(ann)))
	}
}

func TestSessionsAtTheDomain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ann := s.client()
	link, err := s.server.LoginURL(t.Context(), gateway.ID{}, s.people.Owner().ID)
	gatewaytest.Must(t, err)
	a := s.useLink(ann, link)
	cookie := a.Cookies()[0]
	if cookie.Name != "__Host-lodge" || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" {
		t.Errorf("Set-Cookie: %s", a.Header.Get("Set-Cookie"))
	}
	all := s.sessions(ann)
	if len(all) != 1 || !all[0].This || all[0].From != "127.0.0.1" || all[0].Way != "link" || time.Since(all[0].Created) > time.Hour {
		t.Errorf("%+v", all)
	}
	for _, forged := range []string{"", "1", "1.", "1.x", "2." + strings.TrimPrefix(cookie.Value, "1."), "-1." + strings.TrimPrefix(cookie.Value, "1."), cookie.Value + "A", strings.TrimPrefix(cookie.Value, "1.")} {
		if a := s.get(s.client(), s.root()+"/.lodge/sessions", "Cookie", "__Host-lodge="+forged); a.StatusCode != http.StatusForbidden {
			t.Errorf("%q: %s", forged, a.Status)
		}
	}
	if _, err := s.server.LoginURL(t.Context(), gateway.ID{}, 99); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("a link for a stranger: %v", err)
	}
	for do, want := range map[string]int{"end-session": 303, "remove-passkey": 404, "rename-passkey": 400, "": 400, "x": 400} {
		if a := s.form(ann, "/.lodge/account", url.Values{"do": {do}, "id": {"00"}}); a.StatusCode != want {
			t.Errorf("%q of nothing: %s", do, a.Status)
		}
	}
	if a := s.form(ann, "/.lodge/account", url.Values{"do": {strings.Repeat("x", 20<<10)}}); a.StatusCode != http.StatusBadRequest {
		t.Errorf("a form of 20 KiB: %s", a.Status)
	}
	for accept, want := range map[string]string{"application/json": `"error":"Log in"`, "*/*": "lodge open"} {
		if a := s.get(s.client(), s.root()+"/.lodge/login", "Accept", accept); !strings.Contains(a.body, want) {
			t.Errorf("%s: %s", accept, a.body)
		}
	}
}
