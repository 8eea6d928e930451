package https_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// TestBrokenBodyIsTheClientsFault: the app is not to blame, and its port stays found.
func TestBrokenBodyIsTheClientsFault(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(gateway.DefaultPort)...)
	s.app(blog, 80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // it ends with an error
	}))
	s.get(s.client(), s.url("blog")) // finds the port
	for name, body := range map[string]string{
		"size":       "xyz\r\nabc\r\n0\r\n\r\n",
		"long chunk": "2\r\nabc\r\n0\r\n\r\n",
		"late":       "3\r\nabc\r\n-1\r\n\r\n",
		"huge size":  "ffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
	} {
		s.mu.Lock()
		s.dials = 0
		s.mu.Unlock()
		c, err := handshake(s, s.addr, "blog.lodge.localhost")
		if err != nil {
			t.Fatal(err)
		}
		got := rawRequest(t, c, "POST / HTTP/1.1\r\nHost: blog.lodge.localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"+body)
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%s: %q", name, firstLine(got))
		}
		if a := s.get(s.client(), s.url("blog")); a.StatusCode != http.StatusOK {
			t.Errorf("the next request after %s: %s", name, a.Status)
		}
		s.mu.Lock()
		if s.dials > 3 { // one for each request, and perhaps a retry; a search has one for each of gateway.WebPorts
			t.Errorf("%s: %d connections to the VM", name, s.dials)
		}
		s.mu.Unlock()
	}
}

func TestNoCBCInTLS12(t *testing.T) {
	s := newSite(t)
	s.vm("blog")
	connect := func(suites ...uint16) error {
		d := tls.Dialer{Config: &tls.Config{ServerName: "blog.lodge.localhost", RootCAs: s.roots, MaxVersion: tls.VersionTLS12, CipherSuites: suites}} //nolint:gosec // old suites are what is tested
		c, err := d.DialContext(t.Context(), "tcp", s.addr)
		if err == nil {
			_ = c.Close() // the handshake is what counts
		}
		return err
	}
	if err := connect(tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256); err == nil {
		t.Error("the server accepts CBC")
	}
	for _, suite := range []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	} {
		if err := connect(suite); err != nil {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
	}
}

// TestKeyExchangeIsHybrid: what is recorded today stays secret from a quantum computer of tomorrow.
// Clients that lack ML-KEM are served.
func TestKeyExchangeIsHybrid(t *testing.T) {
	s := newSite(t)
	s.vm("blog")
	for _, offer := range [][]tls.CurveID{{tls.X25519MLKEM768, tls.X25519}, {tls.X25519}, {tls.CurveP256}} {
		d := tls.Dialer{Config: &tls.Config{ServerName: "blog.lodge.localhost", RootCAs: s.roots, CurvePreferences: offer}}
		c, err := d.DialContext(t.Context(), "tcp", s.addr)
		gatewaytest.Must(t, err)
		if got := c.(*tls.Conn).ConnectionState().CurveID; got != offer[0] {
			t.Errorf("of %v the server takes %v", offer, got)
		}
		gatewaytest.Must(t, c.Close())
	}
}

// TestGRPCWebIsPlainHTTP: gRPC-Web is for HTTP/1.1 too, unlike gRPC.
func TestGRPCWebIsPlainHTTP(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(8080)...)
	s.app(blog, 8080, echo("port")) // HTTP/1.1 only
	for _, contentType := range []string{"application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpcx"} {
		if a := s.do(s.client(), http.MethodPost, s.url("8080-blog"), strings.NewReader("x"), "Content-Type", contentType); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", contentType, a.Status)
		}
	}
}
