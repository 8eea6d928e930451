package https_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
	"lodge/https/acme"
	"lodge/https/acme/acmetest"
)

// newPublicSite is a site with a real domain, whose certificates are of Pebble. Pebble validates
// names at the site's own listeners.
func newPublicSite(t *testing.T, wildcard bool, change ...func(*acme.Config)) (*site, *acmetest.Pebble) {
	t.Helper()
	var p *acmetest.Pebble
	s := newSiteWith(t, func(s *site, c *https.Config) {
		p = acmetest.Start(t, acmetest.Config{HTTPPort: portOf(t, s.plain), TLSPort: portOf(t, s.addr)})
		c.Domain = "vm.example"
		c.Services = map[string]http.Handler{"s3.vm.example": echo("s3")}
		c.ACME = &acme.Config{Email: "ann@example.org", Directory: p.Directory, Roots: p.Roots, KV: s.kv}
		for _, f := range change {
			f(c.ACME)
		}
		if wildcard {
			hook := filepath.Join(t.TempDir(), "hook")
			script := "#!/bin/sh\ncase $1 in\npresent) curl -sS -d \"{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}\" " + p.DNSAdmin + "/set-txt ;;\n" +
				"cleanup) curl -sS -d \"{\\\"host\\\":\\\"$2.\\\"}\" " + p.DNSAdmin + "/clear-txt ;;\nesac\n"
			gatewaytest.Must(t, os.WriteFile(hook, []byte(script), 0o700)) //nolint:gosec // it is a program
			c.ACME.Records = &acme.Hook{Program: hook}
		}
	})
	s.serve(func() error { return s.server.RunACME(t.Context()) })
	return s, p
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, digits, err := net.SplitHostPort(addr)
	gatewaytest.Must(t, err)
	port, err := strconv.Atoi(digits)
	gatewaytest.Must(t, err)
	return port
}

// leafOf returns the certificate that a name is served with, and whether clients that trust roots
// accept it.
func (s *site) leafOf(roots *x509.CertPool, name string) (*x509.Certificate, error) {
	s.tb.Helper()
	dialer := tls.Dialer{Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}} //nolint:gosec // verified below
	c, err := dialer.DialContext(s.tb.Context(), "tcp", s.addr)
	if err != nil {
		s.tb.Fatalf("%s: %v", name, err)
	}
	defer c.Close()
	chain := c.(*tls.Conn).ConnectionState().PeerCertificates
	between := x509.NewCertPool()
	for _, one := range chain[1:] {
		between.AddCert(one)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: name})
	return chain[0], err
}

func TestPublicCertificates(t *testing.T) {
	t.Parallel()
	s, p := newPublicSite(t, true)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=0")
	}))
	s.vm("secret")
	for _, host := range []string{"blog.vm.example", "vm.example"} {
		gatewaytest.Eventually(t, func() error {
			_, err := s.leafOf(p.Issuers, host)
			return err
		})
	}
	wildcard, err := s.leafOf(p.Issuers, "8080-blog.vm.example")
	if err != nil || wildcard.DNSNames[0] != "*.vm.example" {
		t.Fatalf("%v: %v", wildcard.DNSNames, err)
	}
	// what exists and is private, and what does not exist
	for _, name := range []string{"secret", "nobody", "any.secret", "any.nobody", "a.b.secret", "65536-x"} {
		if leaf, _ := s.leafOf(p.Issuers, name+".vm.example"); !leaf.Equal(wildcard) { // deeper names are not covered
			t.Errorf("%s is served with the certificate of %v", name, leaf.DNSNames)
		}
	}
	shop := s.vm("shop") // whose page is private, and one of whose buckets is public
	s.change(shop, func(m *gateway.VM) { *m = m.Reshare("photos", gateway.Share{Visibility: gateway.Public}) })
	for name, own := range map[string]bool{"photos.shop.s3": true, "wares.shop.s3": false, "shop.s3": false, "photos.nobody.s3": false} {
		if leaf, _ := s.leafOf(p.Issuers, name+".vm.example"); leaf.Equal(wildcard) == own {
			t.Errorf("%s is served with the certificate of %v", name, leaf.DNSNames)
		}
	}
	before := p.Orders.Load()
	var asking sync.WaitGroup
	for i := range 30 {
		asking.Go(func() {
			name := fmt.Sprintf("n%d.blog.vm.example", i)
			if leaf, err := s.leafOf(p.Issuers, name); err != nil {
				t.Errorf("%s: %v, served with the certificate of %v", name, err, leaf.DNSNames)
			}
		})
	}
	asking.Wait()
	if p.Orders.Load() == before {
		t.Error("names below a public VM caused no order")
	}

	s.roots = p.Issuers
	c := s.client()
	for _, host := range []string{"blog", "secret", "n1.blog"} {
		if got := s.get(c, s.url(host)).Header.Values("Strict-Transport-Security"); len(got) != 1 || !strings.HasPrefix(got[0], "max-age=1") {
			t.Errorf("HSTS of %s: %q", host, got)
		}
	}
	for _, path := range []string{"/", "/.lodge/login?token=x"} {
		if private, unknown := s.look(c, "GET", "secret", "secret", path), s.look(c, "GET", "nobody", "nobody", path); private != unknown {
			t.Errorf("a private name and an unknown one:\n%s\n\n%s", private, unknown)
		}
	}
}

// TestPublicCertificatesWithoutAWildcard: each name of a VM gets its own, by the site's listeners.
func TestPublicCertificatesWithoutAWildcard(t *testing.T) {
	t.Parallel()
	s, p := newPublicSite(t, false)
	s.setDomains(s.vm("blog"), gateway.Domain{Name: "www.example.com"})
	for _, name := range []string{"vm.example", "blog.vm.example", "8080-blog.vm.example", "a.b.blog.vm.example", "www.example.com"} {
		if leaf, err := s.leafOf(p.Issuers, name); err != nil || leaf.DNSNames[0] != name {
			t.Errorf("%s: %v, served with the certificate of %v", name, err, leaf.DNSNames)
		}
	}
	before := p.Orders.Load()
	if leaf, err := s.leafOf(s.roots, "nope.vm.example"); err != nil || p.Orders.Load() != before {
		t.Errorf("an unknown name: %v, served with the certificate of %v after %d orders", err, leaf.DNSNames, p.Orders.Load()-before)
	}
}

// TestOwnAuthorityServesUntilThereIsAPublicCertificate, without HSTS: browsers would refuse the
// names later on.
func TestOwnAuthorityServesUntilThereIsAPublicCertificate(t *testing.T) {
	t.Parallel()
	s, p := newPublicSite(t, true)
	p.Stop()
	s.app(s.vm("blog", public(0)...), 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=31536000")
	}))
	for _, name := range []string{"vm.example", "blog.vm.example"} {
		if leaf, err := s.leafOf(s.roots, name); err != nil {
			t.Errorf("%s: %v, served with the certificate of %v", name, err, leaf.DNSNames)
		}
	}
	if got := s.get(s.client(), s.url("blog")); got.StatusCode != http.StatusOK || got.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("%s, HSTS %q", got.Status, got.Header.Get("Strict-Transport-Security"))
	}
}

// TestShutdownWaitsForNoOrder: the authority may take its time, and the next daemon waits.
func TestShutdownWaitsForNoOrder(t *testing.T) {
	t.Parallel()
	s, p := newPublicSite(t, false, func(c *acme.Config) { c.OrderLimit = time.Hour })
	s.vm("blog")
	p.Stall.Store(true)
	shaken := make(chan error, 1)
	go func() {
		_, err := s.leafOf(s.roots, "blog.vm.example")
		shaken <- err
	}()
	gatewaytest.WaitFor(t, "an order", func() bool { return p.Stalled.Load() > 0 })
	ended := make(chan error, 1)
	go func() { ended <- s.server.Shutdown(t.Context()) }()
	gatewaytest.WaitFor(t, "the end of the server", func() bool { return len(ended) > 0 })
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-shaken; err != nil { // with a certificate of the own authority
		t.Errorf("the handshake under way: %v", err)
	}
}
