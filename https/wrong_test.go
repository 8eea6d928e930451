package https_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
	"lodge/https/login/oidc"
)

// from is a client at another loopback address.
func (s *site) from(address string) *http.Client {
	s.tb.Helper()
	jar, err := cookiejar.New(nil)
	gatewaytest.Must(s.tb, err)
	c := s.clientVia(s.addr, jar)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	c.Transport = &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", s.addr)
		},
	}
	s.tb.Cleanup(c.CloseIdleConnections)
	return c
}

// Many wrong tokens, links and codes from one address soon get 429. They keep no one else out, nor a right
// one from there.
func TestWrongSecretsAreLimited(t *testing.T) {
	t.Parallel()
	wrong := strings.Repeat("A", 43)
	post := func(s *site, c *http.Client, target string) int {
		form := strings.NewReader(url.Values{"token": {wrong}}.Encode())
		return s.do(c, http.MethodPost, target, form, "Content-Type", "application/x-www-form-urlencoded").StatusCode
	}
	for name, tt := range map[string]struct {
		try   func(*site, *http.Client) int
		right func(*site, *http.Client, gateway.VM) int
		first int // the status of the first ones
		ok    int
	}{
		"tokens": {func(s *site, c *http.Client) int {
			return s.status(c, s.url("blog"), "Authorization", "Bearer lodge_"+wrong)
		}, func(s *site, c *http.Client, m gateway.VM) int {
			held, _ := s.pass(m, token(0))
			return s.status(c, s.url("blog"), "Authorization", "Bearer "+held)
		}, 401, 200},
		"login links": {
			func(s *site, c *http.Client) int { return post(s, c, s.url("blog")+"/.lodge/login") },
			func(s *site, c *http.Client, m gateway.VM) int { return s.useLink(c, s.link(m)).StatusCode }, 403, 303,
		},
		"links to a port": {
			func(s *site, c *http.Client) int { return post(s, c, s.url("8001-blog")+"/.lodge/link") },
			func(s *site, c *http.Client, m gateway.VM) int {
				held, _ := s.pass(m, link(8001))
				return s.openLink(c, held).StatusCode
			}, 403, 303,
		},
		"links to no VM": {
			func(s *site, c *http.Client) int { return post(s, c, s.url("none")+"/.lodge/login") },
			func(s *site, c *http.Client, m gateway.VM) int { return s.useLink(c, s.link(m)).StatusCode }, 403, 303,
		},
		"links to the domain": {
			func(s *site, c *http.Client) int { return post(s, c, s.root()+"/.lodge/login") },
			func(s *site, c *http.Client, _ gateway.VM) int {
				made, err := s.server.LoginURL(s.tb.Context(), gateway.ID{}, s.people.Owner().ID)
				gatewaytest.Must(s.tb, err)
				return s.useLink(c, made).StatusCode
			}, 403, 303,
		},
		"codes": {func(s *site, c *http.Client) int {
			return s.get(c, s.url("blog")+"/.lodge/callback?code="+wrong, "Cookie", "__Host-lodge-handoff="+wrong).StatusCode
		}, func(s *site, c *http.Client, _ gateway.VM) int {
			s.loginAtRoot(c)
			s.enter(c, "blog")
			return s.status(c, s.url("blog"))
		}, 403, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			blog := s.vm("blog", byLink(8001)...)
			s.app(blog, 80, echo("blog"))
			s.app(blog, 8001, echo("8001"))
			guesser := s.client()
			statuses := map[int]int{}
			for range 300 {
				statuses[tt.try(s, guesser)]++
			}
			if statuses[tt.first] == 0 || statuses[429] < 100 || len(statuses) != 2 {
				t.Errorf("wrong ones got %v", statuses)
			}
			if got := tt.right(s, s.client(), blog); got != tt.ok {
				t.Errorf("a right one from there: %d", got)
			}
			if got := tt.try(s, s.from("127.0.0.2")); got != tt.first {
				t.Errorf("a wrong one from elsewhere: %d", got)
			}
			if n := strings.Count(s.log.String(), "event=secret.refused"); n == 0 || n > 5 {
				t.Errorf("recorded %d times", n)
			}
		})
	}
}

// The states of logins through a provider are limited likewise.
func TestWrongStatesOfAProviderAreLimited(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *https.Config) {
		c.LoginProviders = []oidc.Provider{{Name: "example", Issuer: "https://provider.example", ClientID: "lodge"}}
	})
	c, statuses := s.client(), map[int]int{}
	for range 300 {
		statuses[s.get(c, s.root()+"/.lodge/oidc/example?state=x&code=y").StatusCode]++
	}
	if statuses[403] == 0 || statuses[429] < 100 || len(statuses) != 2 {
		t.Errorf("wrong ones got %v", statuses)
	}
}
