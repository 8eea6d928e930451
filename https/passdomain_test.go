package https_test

import (
	"bufio"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// passDomains is how lodged sets Config.Passthrough.
func passDomains(c *https.Config) { c.Passthrough = c.Directory.PassedThrough }

// A custom domain with Passthrough is the VM's alone: no page of the gateway answers at its name.
func TestDomainPassesThrough(t *testing.T) {
	s := newSiteWithAuthority(t, passDomains)
	blog := s.vm("blog")
	app := ownTLS(t, s, blog)
	s.app(blog, 80, echo("plain"))
	s.setDomains(blog, gateway.Domain{Name: "own.example", Port: 8443, Passthrough: true}, gateway.Domain{Name: "*.own.example"})
	c, err := ownHandshake(t, s)
	gatewaytest.Must(t, err)
	if !c.ConnectionState().PeerCertificates[0].Equal(app.Certificate()) {
		t.Errorf("the certificate of %v", c.ConnectionState().PeerCertificates[0].DNSNames)
	}
	alive(t, c) // the port is private: who may open it is the VM's decision
	inside := dialRaw(t, s.listenOnTap(s.vm("shop")).Addr().String())
	_, err = inside.Write(helloOf(t, "OWN.example")) // as another VM sends it, in any case
	gatewaytest.Must(t, err)
	if first, err := bufio.NewReader(inside).ReadByte(); err != nil || first != 22 { // a handshake record
		t.Errorf("from a tap: %d, %v", first, err)
	}
	over, err := handshake(s, s.addr, "www.own.example")
	gatewaytest.Must(t, err)
	if got := rawRequest(t, over, "GET / HTTP/1.1\r\nHost: own.example\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 421") {
		t.Errorf("on a connection of another name: %q", firstLine(got))
	}
	visitor := s.client()
	s.login(visitor, blog)
	query := url.Values{"to": {"own.example"}, "for": {strings.Repeat("0", 64)}, "path": {"/"}}
	if a := s.get(visitor, s.url("blog")+"/.lodge/handoff?"+query.Encode(), browser()...); a.StatusCode != http.StatusNotFound {
		t.Errorf("a code of the login for it: %s to %q", a.Status, a.Header.Get("Location"))
	}
	for _, challenge := range []string{"/", "/.well-known/acme-challenge/x"} {
		a := s.get(s.clientVia(s.plain, nil), "http://own.example"+challenge)
		if a.StatusCode != http.StatusPermanentRedirect || a.Header.Get("Location") != s.at("own.example")+challenge {
			t.Errorf("http: %s to %q", a.Status, a.Header.Get("Location"))
		}
	}
}

// A change between the two modes ends what is open, and the next connection is of the new one.
func TestDomainChangesItsMode(t *testing.T) {
	s := newSiteWithAuthority(t, passDomains)
	blog := s.vm("blog", public(80)...)
	ownTLS(t, s, blog)
	passed, served := gateway.Domain{Name: "own.example", Port: 8443, Passthrough: true}, gateway.Domain{Name: "own.example", Port: 80}
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("first")) // the test reads it
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	s.setDomains(blog, passed)
	c, err := ownHandshake(t, s)
	gatewaytest.Must(t, err)
	alive(t, c)
	s.setDomains(blog, served)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("passed on before: %v, want a reset", err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.at("own.example")+"/", nil)
	gatewaytest.Must(t, err)
	res, err := s.client().Do(r)
	gatewaytest.Must(t, err)
	defer res.Body.Close()
	body := bufio.NewReader(res.Body)
	if first, err := body.ReadString('t'); err != nil || first != "first" {
		t.Fatalf("served now: %q, %v", first, err)
	}
	s.setDomains(blog, passed)
	if _, err := body.ReadByte(); err == nil {
		t.Error("served before: it goes on")
	}
	c, err = ownHandshake(t, s)
	gatewaytest.Must(t, err)
	alive(t, c)
}

// No custom domain takes a name of the host, not even one that was recorded under another domain.
func TestOwnNamesDoNotPassThrough(t *testing.T) {
	s := newSiteWithAuthority(t, passDomains)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, echo("plain"))
	app := ownTLS(t, s, blog)
	s.setDomains(blog, gateway.Domain{Name: "blog.lodge.localhost", Port: 8443, Passthrough: true})
	c, err := handshake(s, s.addr, "blog.lodge.localhost")
	if err != nil || c.ConnectionState().PeerCertificates[0].Equal(app.Certificate()) {
		t.Errorf("its own page: %v", err)
	}
}
