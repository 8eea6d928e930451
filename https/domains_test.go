package https_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// newSiteWithAuthority is newSite with an authority for custom domains, which clients trust.
func newSiteWithAuthority(t *testing.T, change ...func(*https.Config)) *site {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	gatewaytest.Must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	gatewaytest.Must(t, err)
	root, err := x509.ParseCertificate(der)
	gatewaytest.Must(t, err)
	s := newSite(t, append(change, func(c *https.Config) {
		c.CustomCertificate = func(_ context.Context, host string) (*tls.Certificate, error) {
			leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{host}, NotBefore: template.NotBefore, NotAfter: template.NotAfter}
			der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), key)
			return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
		}
	})...)
	s.roots.AddCert(root)
	return s
}

func (s *site) setDomains(m gateway.VM, domains ...gateway.Domain) {
	s.tb.Helper()
	_, err := s.dir.Update(s.tb.Context(), m.ID, func(m *gateway.VM) error { m.Domains = domains; return nil })
	gatewaytest.Must(s.tb, err)
}

// at returns the origin of a custom domain.
func (s *site) at(host string) string {
	_, port, _ := net.SplitHostPort(s.addr)
	return "https://" + host + ":" + port
}

func TestCustomDomainLeadsToItsPort(t *testing.T) {
	s := newSiteWithAuthority(t)
	blog, shop := s.vm("blog", public(0, 8080)...), s.vm("shop", public(0)...)
	s.app(blog, 80, echo("blog80"))
	s.app(blog, 8080, echo("blog8080"))
	s.app(blog, 9090, echo("blog9090"))
	s.app(shop, 80, echo("shop80"))
	s.setDomains(blog, gateway.Domain{Name: "example.com"}, gateway.Domain{Name: "*.example.com", Port: 8080}, gateway.Domain{Name: "private.example.org", Port: 9090})
	s.setDomains(shop, gateway.Domain{Name: "shop.example.com"})
	for host, want := range map[string]string{
		"example.com": "blog80", "www.example.com": "blog8080", "WWW.Example.com": "blog8080", "shop.example.com": "shop80", "private.example.org": "",
	} {
		a := s.get(s.client(), s.at(host)+"/")
		if want == "" && a.StatusCode != http.StatusUnauthorized || want != "" && !strings.Contains(a.body, "app="+want+"\n") {
			t.Errorf("%s: %s: %s, want %q", host, a.Status, a.body, want)
		}
	}
	for _, host := range []string{"a.www.example.com", "example.org", "www.example.org", "com"} {
		if _, err := handshake(s, s.addr, host); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: %v", host, err)
		}
	}
	c, err := handshake(s, s.addr, "www.example.com")
	gatewaytest.Must(t, err)
	if got := rawRequest(t, c, "GET / HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 421") {
		t.Errorf("another domain than that of the handshake: %q", firstLine(got))
	}
	if a := s.get(s.clientVia(s.plain, nil), "http://www.example.com/x"); a.Header.Get("Location") != s.at("www.example.com")+"/x" {
		t.Errorf("redirect to %q", a.Header.Get("Location"))
	}
}

// The host's own root cannot sign for a custom domain, so the handshake is refused.
func TestCustomDomainNeedsAnAuthority(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	s.setDomains(blog, gateway.Domain{Name: "example.com"})
	if _, err := handshake(s, s.addr, "example.com"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("handshake: %v", err)
	}
	if at, certified := s.server.DomainURL("example.com"); at != s.at("example.com") || certified {
		t.Errorf("the answer has %s, with a certificate %t", at, certified)
	}
}

// followAll follows redirects as a browser does, at most some.
func (s *site) followAll(c *http.Client, at string) answer {
	s.tb.Helper()
	a := s.get(c, at, browser()...)
	for range 12 {
		if a.Header.Get("Location") == "" {
			break
		}
		if at, a = s.joinNames(c, at, a); a.Header.Get("Location") != "" {
			at, a = s.follow(c, at, a)
		}
	}
	return a
}

func TestLoginCarriesToCustomDomains(t *testing.T) {
	s := newSiteWithAuthority(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	s.app(blog, 80, echo("blog80"))
	s.app(blog, 8080, echo("blog8080"))
	s.app(shop, 80, echo("shop80"))
	s.setDomains(blog, gateway.Domain{Name: "example.com"}, gateway.Domain{Name: "*.example.com", Port: 8080})
	s.setDomains(shop, gateway.Domain{Name: "shop.example.com"})
	c := s.client()
	s.login(c, blog)
	for host, want := range map[string]string{"example.com": "blog80", "www.example.com": "blog8080", "a.b.blog." + s.domain: "blog80"} {
		a := s.followAll(c, s.at(host)+"/deep?x=%2F")
		if a.StatusCode != 200 || !strings.Contains(a.body, "app="+want+"\n") || !strings.Contains(a.body, "uri=/deep?x=%2F\n") ||
			!strings.Contains(a.body, "X-Lodge-User: "+owner) || strings.Contains(a.body, "__Host-lodge") {
			t.Errorf("%s: %s: %s", host, a.Status, a.body)
		}
	}
	if a := s.followAll(c, s.at("shop.example.com")+"/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("another VM's domain: %s: %s", a.Status, a.body)
	}
	if a := s.followAll(s.client(), s.at("www.example.com")+"/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a stranger: %s", a.Status)
	}
}

// The session at a domain of one VM opens no domain of another, not even the same domain once it is
// the other's.
func TestCustomDomainsOfTwoVMs(t *testing.T) {
	s := newSiteWithAuthority(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	s.app(blog, 80, echo("blog"))
	s.app(shop, 80, echo("shop"))
	s.setDomains(blog, gateway.Domain{Name: "*.example.com"}, gateway.Domain{Name: "moves.example.org"})
	s.setDomains(shop, gateway.Domain{Name: "shop.example.com"})
	c := s.client()
	s.login(c, blog)
	for _, host := range []string{"www.example.com", "moves.example.org"} {
		if a := s.followAll(c, s.at(host)+"/"); a.StatusCode != 200 {
			t.Fatalf("%s: %s", host, a.Status)
		}
	}
	session := c.Jar.Cookies(mustParse(t, s.at("www.example.com")))[0]
	for _, host := range []string{"shop.example.com", "shop." + s.domain, "blog." + s.domain, "api.example.com"} {
		if a := s.get(s.client(), s.at(host)+"/", "Cookie", session.String()); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("the session of www.example.com at %s: %s", host, a.Status)
		}
	}
	query := url.Values{"to": {"shop.example.com"}, "for": {strings.Repeat("0", 64)}, "path": {"/"}}
	if a := s.get(c, s.url("blog")+"/.lodge/handoff?"+query.Encode(), browser()...); a.StatusCode != http.StatusNotFound {
		t.Errorf("a handoff from blog to shop's domain: %s to %q", a.Status, a.Header.Get("Location"))
	}
	for origin, want := range map[string]int{
		s.at("www.example.com"): 200, s.at("api.example.com"): 200, s.url("8080-blog"): 200,
		s.at("shop.example.com"): 403, s.url("shop"): 403, s.at("example.com"): 403, "https://moves.example.org.evil.org": 403,
	} {
		if a := s.do(c, http.MethodPost, s.at("www.example.com")+"/", nil, "Origin", origin, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"); a.StatusCode != want {
			t.Errorf("a script of %s: %s, want %d", origin, a.Status, want)
		}
	}
	s.setDomains(blog, gateway.Domain{Name: "*.example.com"})
	s.setDomains(shop, gateway.Domain{Name: "shop.example.com"}, gateway.Domain{Name: "moves.example.org"})
	if a := s.get(c, s.at("moves.example.org")+"/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a domain that is another VM's now: %s: %s", a.Status, a.body)
	}
	for host, want := range map[string]int{"www.example.com": 403, "shop.example.com": 200, "moves.example.org": 200} { // from inside
		if a := s.get(s.tap(shop), s.at(host)+"/"); a.StatusCode != want {
			t.Errorf("shop at %s: %s, want %d", host, a.Status, want)
		}
	}
}

// Names far below a VM have leaves of their own, which handshakes share.
func TestDeepNamesHaveCertificates(t *testing.T) {
	s := newSite(t)
	s.vm("blog")
	leaf := func(name string) *x509.Certificate {
		c, err := handshake(s, s.addr, name)
		gatewaytest.Must(t, err)
		return c.ConnectionState().PeerCertificates[0]
	}
	for _, name := range []string{"a.b.blog.lodge.localhost", "a.b.c.d.blog.lodge.localhost"} {
		if first := leaf(name); first.DNSNames[0] != name || !leaf(name).Equal(first) {
			t.Errorf("%s has the certificate of %q, another one each time", name, first.DNSNames)
		}
	}
}
