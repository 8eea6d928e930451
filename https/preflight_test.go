package https_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"lodge/https"
)

// api is an app that answers CORS as browsers require, for any origin, and everything else with a
// secret, whatever the method.
func api(t *testing.T) http.Handler {
	t.Helper()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Allow-Headers", "content-type")
		h.Set("Vary", "Origin")
		h.Set("X-Secret", "secret")
		h.Set("Set-Cookie", "secret=1")
		if r.Method == http.MethodOptions {
			for _, name := range []string{"Cookie", "Authorization", "X-Lodge-User", "X-Lodge-Vm", "Upgrade", "Content-Type"} {
				if r.Header.Get(name) != "" {
					t.Errorf("the preflight has %s: %q", name, r.Header.Get(name))
				}
			}
		}
		fmt.Fprintf(w, "secret for %s", r.Header.Get("X-Lodge-User"))
	})
}

// restarted returns a new Server on the state of s, with no memory of what s has served.
func (s *site) restarted() *site {
	s.tb.Helper()
	web := listen(s.tb)
	again := &site{
		tb: s.tb, domain: s.domain, state: s.state, dir: s.dir, db: s.db, people: s.people, asks: s.asks, logins: s.logins, log: s.log, roots: s.roots,
		addr: web.Addr().String(), backends: map[string]string{}, hanging: map[string]bool{},
	}
	var err error
	if again.server, err = https.New(https.Config{
		Domain: s.domain, Port: web.Addr().(*net.TCPAddr).Port, Dir: filepath.Join(s.state, "ca"),
		Directory: s.dir, People: s.people, Logins: s.logins, Sessions: s.db.WebSessions(), Passkeys: s.db.Passkeys(), Kept: s.db, Requests: s.asks, Dial: again.dial, Logger: slog.New(slog.DiscardHandler),
	}); err != nil {
		s.tb.Fatal(err)
	}
	again.serve(func() error { return again.server.Serve(web) })
	return again
}

func TestPreflightPassesTheLoginWall(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog, shop := s.vm("blog", public(9090)...), s.vm("shop")
	for _, port := range []uint16{80, 8001} {
		s.app(blog, port, api(t))
	}
	preflight := func(c *http.Client, host, from string, more ...string) answer {
		return s.do(c, http.MethodOptions, s.url(host)+"/items?id=1", strings.NewReader("body"), append([]string{
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type", "Origin", from,
			"Sec-Fetch-Mode", "cors", "Sec-Fetch-Site", "same-site", "Content-Type", "text/plain", "Authorization", "Basic eA==", "Cookie", "a=1",
		}, more...)...)
	}
	if a := preflight(s.client(), "8001-blog", s.url("3000-blog")); a.StatusCode != 401 || strings.Contains(a.body, "secret") {
		t.Errorf("where no one has logged in: %s, %q", a.Status, a.body)
	}
	ann := s.client()
	s.login(ann, blog)
	if a := s.get(ann, s.url("blog")); a.StatusCode != 200 {
		t.Fatalf("the owner: %s", a.Status)
	}
	for _, c := range []*http.Client{s.client(), ann} { // a browser sends none of its cookies
		a := preflight(c, "8001-blog", s.url("3000-blog"))
		if a.StatusCode != 200 || a.Header.Get("Access-Control-Allow-Origin") != s.url("3000-blog") || a.Header.Get("Access-Control-Allow-Headers") != "content-type" || a.Header.Get("Vary") != "Origin" {
			t.Errorf("preflight: %s, %v", a.Status, a.Header)
		}
		if a.body != "" || a.Header.Get("X-Secret") != "" || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("preflight shows %q, %v", a.body, a.Header)
		}
	}
	for name, a := range map[string]answer{
		"a sibling's page":    preflight(s.client(), "8001-blog", s.url("shop")),
		"another site's page": preflight(s.client(), "8001-blog", "https://evil.example"),
		"no origin":           s.do(s.client(), "OPTIONS", s.url("8001-blog"), nil, "Access-Control-Request-Method", "POST"),
		"a sandboxed page":    preflight(s.client(), "8001-blog", "null"),
		"not a preflight":     s.do(s.client(), "OPTIONS", s.url("8001-blog"), nil, "Origin", s.url("3000-blog")),
		"another method":      s.do(s.client(), "POST", s.url("8001-blog"), nil, "Origin", s.url("3000-blog"), "Access-Control-Request-Method", "POST"),
		"another VM":          preflight(s.tap(shop), "8001-blog", s.url("3000-blog")),
		"another VM's wall":   preflight(s.client(), "8001-shop", s.url("3000-shop")), // no one has logged in at shop
	} {
		if a.StatusCode != 401 && a.StatusCode != 403 || strings.Contains(a.body, "secret") || a.Header.Get("X-Secret") != "" {
			t.Errorf("%s: %s: %q", name, a.Status, a.body)
		}
	}
	if a := preflight(s.client(), "9090-blog", "https://evil.example"); a.StatusCode != 502 { // public, where nothing listens
		t.Errorf("a public port's preflight: %s", a.Status)
	}
}

// TestPreflightPassesAfterARestart: the network that a login was used from is stored.
func TestPreflightPassesAfterARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog")
	s.login(s.client(), blog)
	again := s.restarted()
	again.app(blog, 8001, api(t))
	header := []string{"Access-Control-Request-Method", "POST", "Origin", again.url("3000-blog")}
	if a := again.do(again.client(), "OPTIONS", again.url("8001-blog"), nil, header...); a.StatusCode != 200 {
		t.Errorf("preflight: %s", a.Status)
	}
	if err := again.server.Remove(t.Context(), blog.ID); err != nil {
		t.Fatal(err)
	}
	if a := again.do(again.client(), "OPTIONS", again.url("8001-blog"), nil, header...); a.StatusCode != 401 {
		t.Errorf("after the VM's removal: %s", a.Status)
	}
}

// TestPreflightThroughATunnel: where strangers may come from the same address as the owner, that
// proves nothing. At names of localhost, loopback is this machine: no tunnel leads browsers there.
func TestPreflightThroughATunnel(t *testing.T) {
	for name, tt := range map[string]struct {
		domain  string
		trusted string // net of proxies
		header  []string
		want    int
	}{
		"this machine":                  {domain: "lodge.localhost", want: 200},
		"a tunnel without headers":      {domain: "vm.example", want: 401},
		"a tunnel with a header":        {domain: "lodge.localhost", header: []string{"X-Forwarded-For", "198.51.100.1"}, want: 401},
		"a proxy without headers":       {domain: "lodge.localhost", trusted: "127.0.0.1/32", want: 401},
		"the owner, behind a proxy":     {domain: "vm.example", trusted: "127.0.0.1/32", header: []string{"X-Forwarded-For", "192.0.2.1"}, want: 200},
		"a stranger, behind that proxy": {domain: "vm.example", trusted: "127.0.0.1/32", header: []string{"X-Forwarded-For", "198.51.100.1"}, want: 401},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *https.Config) {
				c.Domain = tt.domain
				if tt.trusted != "" {
					c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix(tt.trusted)}
				}
			})
			blog := s.vm("blog")
			s.app(blog, 80, echo("blog"))
			s.app(blog, 8001, api(t))
			ann := s.client()
			s.login(ann, blog)
			for _, header := range [][]string{nil, {"X-Forwarded-For", "192.0.2.1"}} {
				if a := s.get(ann, s.url("blog"), header...); a.StatusCode != 200 {
					t.Fatalf("the owner: %s", a.Status)
				}
			}
			header := append([]string{"Access-Control-Request-Method", "POST", "Origin", s.url("3000-blog")}, tt.header...)
			if a := s.do(s.client(), "OPTIONS", s.url("8001-blog"), nil, header...); a.StatusCode != tt.want {
				t.Errorf("preflight: %s", a.Status)
			}
		})
	}
}

// Many apps answer a preflight without a length, or in parts.
func TestPreflightMayBeAnsweredInParts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog")
	s.app(blog, 80, echo("blog"))
	s.app(blog, 8001, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		_, _ = w.Write(make([]byte, 1<<20)) // several reads of the proxy; the status below shows a failure
	}))
	ann := s.client()
	s.login(ann, blog)
	if a := s.get(ann, s.url("blog")); a.StatusCode != 200 {
		t.Fatalf("the owner: %s", a.Status)
	}
	a := s.do(s.client(), http.MethodOptions, s.url("8001-blog"), nil, "Access-Control-Request-Method", "PUT", "Origin", s.url("3000-blog"))
	if a.StatusCode != 200 || a.Header.Get("Access-Control-Allow-Origin") != s.url("3000-blog") || a.body != "" {
		t.Errorf("preflight: %s, %v, %q", a.Status, a.Header, a.body)
	}
}
