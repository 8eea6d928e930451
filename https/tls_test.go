package https_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
	"lodge/https"
)

func handshake(s *site, addr, name string) (*tls.Conn, error) {
	dialer := tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: s.roots, InsecureSkipVerify: name == "", MinVersion: tls.VersionTLS12}} //nolint:gosec // without a name there is nothing to verify
	c, err := dialer.DialContext(s.tb.Context(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	s.tb.Cleanup(func() { _ = c.Close() }) // the test is over
	return c.(*tls.Conn), nil
}

func TestHandshakeFailsForNamesOfOtherZones(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.Inside = map[string]http.Handler{"s3.lodge.internal": echo("s3")} })
	blog := s.vm("blog")
	l := s.listenOnTap(blog)
	tests := []struct {
		name    string
		outside bool
		inside  bool
	}{
		{"lodge.localhost", true, true},
		{"blog.lodge.localhost", true, true},
		{"BLOG.Lodge.localhost", true, true},
		{"8080-blog.lodge.localhost", true, true},
		{"65535-blog.lodge.localhost", true, true},
		{"any.blog.lodge.localhost", true, true},
		{"s3.lodge.internal", false, true},
		{"bucket.s3.lodge.internal", false, true},
		{"", false, false},
		{"shop.lodge.localhost", true, true},
		{"65536-blog.lodge.localhost", true, true},
		{"080-blog.lodge.localhost", true, true},
		{"a.b.blog.lodge.localhost", true, true},
		{"a.b.c.d.blog.lodge.localhost", true, true},
		{"a.b.shop.lodge.localhost", true, true},
		{"a.b.blog.lodge.internal", false, true},
		{"8080-blog.blog.lodge.localhost", true, true}, // a name below blog like any other
		{"any.8080-blog.lodge.localhost", true, true},
		{"blog..lodge.localhost", false, false},
		{"example.org", false, false},
		{"lodge.internal", false, true},
		{"blog.lodge.internal", false, true},
		{"8080-blog.lodge.internal", false, true},
		{"any.blog.lodge.internal", false, true},
		{"shop.lodge.internal", false, false},
		{"8080-s3.lodge.internal", false, false},
		{"a.b.s3.lodge.internal", false, false},
		{"localhost", false, false},
	}
	for _, tt := range tests {
		for where, want := range map[string]bool{s.addr: tt.outside, l.Addr().String(): tt.inside} {
			_, err := handshake(s, where, tt.name)
			if (err == nil) != want {
				t.Errorf("%q (inside %t): %v, want success %t", tt.name, where != s.addr, err, want)
			}
			// the alert of RFC 6066 §3
			if err != nil && !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%q: %v", tt.name, err)
			}
		}
	}
}

func TestManyNamesMakeFewCertificates(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for i := range 4 {
		s.vm(fmt.Sprintf("vm%d", i))
	}
	var asking sync.WaitGroup
	var serials sync.Map
	for worker := range 8 {
		asking.Go(func() {
			for i := range 40 {
				name := fmt.Sprintf("%d-vm%d.lodge.localhost", 1000*(worker+1)+i, i%4)
				if i%8 < 4 {
					name = fmt.Sprintf("any%d.vm%d.lodge.localhost", i, i%4)
				}
				c, err := handshake(s, s.addr, name)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				serials.Store(c.ConnectionState().PeerCertificates[0].SerialNumber.String(), true)
			}
		})
	}
	asking.Wait()
	count := 0
	serials.Range(func(any, any) bool { count++; return true })
	if count != 5 { // the domain's, and one for the names below each VM's
		t.Errorf("%d certificates, want 5", count)
	}
}

func TestLeavesAreOfTheDomainAndTheParent(t *testing.T) {
	s := newSite(t)
	s.vm("blog")
	for name, subject := range map[string]string{
		"lodge.localhost": "lodge.localhost", "8080-blog.lodge.localhost": "lodge.localhost", "blog.lodge.localhost": "lodge.localhost",
		"any.blog.lodge.localhost": "blog.lodge.localhost", "a.b.blog.lodge.localhost": "a.b.blog.lodge.localhost",
	} {
		c, err := handshake(s, s.addr, name)
		if err != nil {
			t.Fatal(err)
		}
		leaf := c.ConnectionState().PeerCertificates[0]
		if leaf.DNSNames[0] != subject {
			t.Errorf("%s got the certificate of %v", name, leaf.DNSNames)
		}
		if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 8*24*time.Hour {
			t.Errorf("%s: valid for %v", name, life)
		}
	}
}

func TestCertificateIsRenewed(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.LeafLife = 2 * time.Second })
	s.vm("blog")
	first, err := handshake(s, s.addr, "blog.lodge.localhost")
	if err != nil {
		t.Fatal(err)
	}
	serial := first.ConnectionState().PeerCertificates[0].SerialNumber
	gatewaytest.WaitFor(t, "a new certificate", func() bool {
		c, err := handshake(s, s.addr, "blog.lodge.localhost")
		return err == nil && c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(serial) != 0
	})
}

func TestHostMustBeTheNameOfTheHandshake(t *testing.T) {
	s := newSite(t)
	blog, shop := s.vm("blog", public(0)...), s.vm("shop", public(0)...)
	s.app(blog, 80, echo("blog"))
	s.app(shop, 80, echo("shop"))
	for host, want := range map[string]int{
		"blog.lodge.localhost": 200, "BLOG.lodge.localhost.:1234": 200,
		"shop.lodge.localhost": 421, "lodge.localhost": 421, "8080-blog.lodge.localhost": 421, "": 400, "nope.lodge.localhost": 421, "127.0.0.1": 421,
	} {
		c, err := handshake(s, s.addr, "blog.lodge.localhost")
		if err != nil {
			t.Fatal(err)
		}
		status := rawRequest(t, c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if host == "" { // net/http accepts an empty Host; it has no route
			want = 421
		}
		if !strings.HasPrefix(status, fmt.Sprintf("HTTP/1.1 %d", want)) {
			t.Errorf("Host %q: %q, want %d", host, firstLine(status), want)
		}
	}
}

func TestCurlVerifiesEveryName(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog", public(0, 8080)...)
	s.app(blog, 80, echo("plain"))
	s.app(blog, 8080, echo("port"))
	_, port, _ := net.SplitHostPort(s.addr)
	root := s.rootFile()
	for name, want := range map[string]string{"blog": "plain", "8080-blog": "port", "any.blog": "plain", "a.b.blog": "plain"} {
		host := name + ".lodge.localhost"
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--cacert", root, "--resolve", host+":"+port+":127.0.0.1", //nolint:gosec // the test's own arguments
			"https://"+host+":"+port+"/").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "app="+want) {
			t.Errorf("%s: %v: %s", host, err, out)
		}
	}
}

func TestRedirect(t *testing.T) {
	s := newSite(t)
	s.vm("blog")
	_, port, _ := net.SplitHostPort(s.addr)
	c := s.clientVia(s.plain, nil)
	a := s.do(c, http.MethodPost, "http://blog.lodge.localhost/a%2Fb?c=d", strings.NewReader("x"))
	if want := "https://blog.lodge.localhost:" + port + "/a%2Fb?c=d"; a.StatusCode != 308 || a.Header.Get("Location") != want {
		t.Errorf("%s %s, want 308 %s", a.Status, a.Header.Get("Location"), want)
	}
	if a := s.get(c, "http://example.org/"); a.StatusCode != 421 {
		t.Errorf("a foreign name: %s", a.Status)
	}
}

// TestRedirectLeadsNowhereElse: a target that is not a path must not become part of the host name.
func TestRedirectLeadsNowhereElse(t *testing.T) {
	s := newSite(t)
	s.vm("blog")
	for _, target := range []string{"x:.evil.example/", "*"} {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.plain)
		if err != nil {
			t.Fatal(err)
		}
		if got := rawRequest(t, c, "GET "+target+" HTTP/1.1\r\nHost: blog.lodge.localhost\r\nConnection: close\r\n\r\n"); strings.Contains(got, "Location:") {
			t.Errorf("%s: %q", target, got)
		}
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\r\n")
	return line
}

// rawRequest sends bytes unchanged and returns the response.
func rawRequest(tb testing.TB, c net.Conn, request string) string {
	tb.Helper()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	if _, err := c.Write([]byte(request)); err != nil {
		tb.Fatal(err)
	}
	var got strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			return got.String()
		}
	}
}
