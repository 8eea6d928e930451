package https_test

import (
	"net/url"
	"strings"
	"testing"
)

// Whatever is in the query of a path that redirects, for a stranger and for somebody with a session, a
// browser stays on names of the host.
func TestRedirectsStayOnTheHost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog")
	s.app(blog, 80, echo("blog"))
	s.app(blog, 8080, echo("8080"))
	ann := s.client()
	s.loginAtRoot(ann)
	s.enter(ann, "blog")
	port := mustParse(t, s.root()).Port()
	stateless := s.clientVia(s.addr, nil)
	tries, redirects := 0, 0
	for _, evil := range []string{
		"//evil.example/", "///evil.example/", "https://evil.example/", "https:evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n//evil.example",
		"javascript:alert(1)", "data:text/html,x", "evil.example", "evil.example:443", "blog.lodge.localhost.evil.example", "blog.lodge.localhost@evil.example",
		"blog.lodge.localhost:1@evil.example", "https://blog.lodge.localhost@evil.example/", "https://blog.lodge.localhost\\@evil.example/", "/%2f/evil.example",
		"/.lodge/callback?path=//evil.example", "blog.lodge.internal", "8080-blog.lodge.localhost/../@evil.example", "", strings.Repeat("/x", 4000),
	} {
		for _, path := range []string{
			"/.lodge/handoff?for=" + strings.Repeat("0", 64), "/.lodge/callback?", "/.lodge/callback?code=x", "/.lodge/enter?", "/.lodge/on?", "/.lodge/names?", "/.lodge/login?",
			"/.lodge/join?", "/.lodge/link?", "/.lodge/logout?", "/.lodge/account?", "/.lodge/oidc/x?",
		} {
			for _, params := range [][]string{{"path"}, {"to", "at"}} {
				query := url.Values{"to": {"8080-blog.lodge.localhost"}, "at": {"8080-blog.lodge.localhost"}, "path": {"/"}}
				for _, param := range params {
					query.Set(param, evil)
				}
				for _, at := range []string{s.root(), s.url("blog")} {
					for who, cookie := range map[string]string{
						"ann": s.cookieOf(ann, at), "a stranger": "__Host-lodge-handoff=" + strings.Repeat("A", 43),
					} {
						tries++
						target := at + path + "&" + query.Encode()
						location := s.get(stateless, target, browser("Cookie", cookie)...).Header.Get("Location")
						if location == "" {
							continue
						}
						redirects++
						to, err := mustParse(t, target).Parse(location)
						if err != nil || to.Scheme != "https" || to.User != nil || to.Port() != port || to.Hostname() != s.domain && !strings.HasSuffix(to.Hostname(), "."+s.domain) {
							t.Errorf("%s: %s leads to %q", who, target, location)
						}
					}
				}
			}
		}
	}
	t.Logf("%d of %d requests were redirected", redirects, tries)
}
