package https_test

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
)

// look is all that a stranger gets by one request, with the name replaced.
func (s *site) look(c *http.Client, method, host, vm, path string, header ...string) string {
	s.tb.Helper()
	a := s.do(c, method, s.url(host)+path, nil, header...)
	var fields []string
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		if name != "Date" {
			fields = append(fields, fmt.Sprintf("%s: %s", name, a.Header[name]))
		}
	}
	seen := fmt.Sprintf("%s\n%s\n\n%s", a.Status, strings.Join(fields, "\n"), a.body)
	if cookie, ok := strings.CutPrefix(a.Header.Get("Set-Cookie"), "__Host-lodge-handoff="); ok {
		secret, _, _ := strings.Cut(cookie, ";")
		seen = strings.ReplaceAll(seen, secret, "SECRET")
	}
	if to, err := a.Location(); err == nil {
		seen = strings.ReplaceAll(seen, to.Query().Get("for"), "HASH")
	}
	return strings.ReplaceAll(seen, vm, "NAME")
}

// TestUnknownNamesLookLikePrivateOnes: blog exists and is private, as is every port of it; nope does
// not exist.
func TestUnknownNamesLookLikePrivateOnes(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	s.app(blog, 80, echo("blog"))
	s.app(blog, 8080, echo("port"))
	stopped := s.vm("stop")
	if _, err := s.dir.Update(t.Context(), stopped.ID, func(m *gateway.VM) error { m.Desired = gateway.Stopped; return nil }); err != nil {
		t.Fatal(err)
	}
	inside := s.tap(s.vm("other"))
	token := strings.Repeat("A", 43)
	for name, tt := range map[string]struct {
		method, prefix, path string
		header               []string
	}{
		"a program":            {"GET", "", "/", nil},
		"JSON":                 {"GET", "", "/x?y=1", []string{"Accept", "application/json"}},
		"a browser":            {"GET", "", "/", browser()},
		"a port":               {"GET", "8080-", "/deep?a=b", browser()},
		"a port, program":      {"POST", "8080-", "/", nil},
		"a deep name":          {"GET", "any.", "/", browser()},
		"a deeper name":        {"GET", "a.b.", "/", nil},
		"another site's page":  {"POST", "", "/", []string{"Origin", "https://evil.example"}},
		"a wrong session":      {"GET", "", "/", []string{"Cookie", "__Host-lodge=" + token}},
		"a wrong link":         {"GET", "", "/.lodge/login?token=" + token, browser()},
		"a wrong login":        {"POST", "", "/.lodge/login", nil},
		"a start":              {"POST", "", "/.lodge/start", []string{"Origin", "https://NAME.lodge.localhost"}},
		"a handoff":            {"GET", "", "/.lodge/handoff?to=8080-NAME.lodge.localhost&for=x&path=/", browser()},
		"a callback":           {"GET", "8080-", "/.lodge/callback?code=" + token + "&path=/", browser()},
		"no login elsewhere":   {"GET", "", "/.lodge/callback?path=/x", browser("Cookie", "__Host-lodge-handoff="+token)},
		"none, no cookies":     {"GET", "", "/.lodge/callback?path=/x", browser()},
		"tried before":         {"GET", "", "/", browser("Cookie", "__Host-lodge-tried=1")},
		"CONNECT-like options": {"OPTIONS", "", "/", nil},
		"its own page":         {"POST", "", "/", []string{"Origin", "https://NAME.lodge.localhost"}},
		"its own link":         {"GET", "", "/", []string{"Referer", "https://NAME.lodge.localhost/", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"}},
		"its own preflight":    {"OPTIONS", "", "/", []string{"Origin", "https://8080-NAME.lodge.localhost", "Access-Control-Request-Method", "PUT"}},
		"a join":               {"GET", "8080-", "/.lodge/join", []string{"Referer", "https://NAME.lodge.localhost/", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Dest", "image"}},
	} {
		for where, c := range map[string]*http.Client{"outside": s.client(), "another VM": inside} {
			looks := map[string]string{}
			for _, vm := range []string{"blog", "stop", "nope"} {
				var header []string
				for _, text := range tt.header {
					header = append(header, strings.ReplaceAll(text, "NAME", vm))
				}
				looks[vm] = s.look(c, tt.method, tt.prefix+vm, vm, strings.ReplaceAll(tt.path, "NAME", vm), header...)
			}
			if looks["blog"] != looks["nope"] || looks["stop"] != looks["nope"] {
				t.Errorf("%s, %s: a private name, a stopped one and an unknown one:\n%s\n\n%s\n\n%s", name, where, looks["blog"], looks["stop"], looks["nope"])
			}
		}
	}
}

// TestUnknownNamesGetTheSameHandshake compares certificates, and what port 80 answers.
func TestUnknownNamesGetTheSameHandshake(t *testing.T) {
	s := newSite(t)
	s.vm("blog")
	leaf := func(host string) *x509.Certificate {
		t.Helper()
		c, err := handshake(s, s.addr, host+".lodge.localhost")
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		return c.ConnectionState().PeerCertificates[0]
	}
	for _, prefix := range []string{"", "8080-"} {
		if blog, nope := leaf(prefix+"blog"), leaf(prefix+"nope"); !blog.Equal(nope) || blog.DNSNames[0] != "lodge.localhost" {
			t.Errorf("%q: the certificates of %v and %v", prefix, blog.DNSNames, nope.DNSNames)
		}
	}
	for _, prefix := range []string{"any.", "a.b."} {
		blog, nope := leaf(prefix+"blog"), leaf(prefix+"nope")
		if strings.ReplaceAll(fmt.Sprint(blog.DNSNames), "blog", "nope") != fmt.Sprint(nope.DNSNames) {
			t.Errorf("%q: the certificates of %v and %v", prefix, blog.DNSNames, nope.DNSNames)
		}
	}
	c := s.clientVia(s.plain, nil)
	for _, host := range []string{"blog", "nope"} {
		a := s.get(c, "http://"+host+".lodge.localhost/x")
		if want := s.url(host) + "/x"; a.StatusCode != http.StatusPermanentRedirect || a.Header.Get("Location") != want {
			t.Errorf("port 80, %s: %s to %q", host, a.Status, a.Header.Get("Location"))
		}
	}
}
