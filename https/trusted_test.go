package https_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"lodge/https"
)

func TestAppSeesTheClientBehindATrustedProxy(t *testing.T) {
	forwarded := []string{"X-Forwarded-For", "10.9.9.9, 203.0.113.9, 198.51.100.7"}
	for name, tt := range map[string]struct {
		trusted []netip.Prefix
		want    string
	}{
		"none":        {nil, "127.0.0.1"},
		"another":     {[]netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, "127.0.0.1"},
		"the tunnel":  {[]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, "198.51.100.7"},
		"two proxies": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("198.51.100.0/24")}, "203.0.113.9"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(c *https.Config) { c.TrustedProxies, c.AccessLog = tt.trusted, true })
			blog := s.vm("blog", public(8080)...)
			s.app(blog, 8080, echo("port"))
			if a := s.get(s.client(), s.url("8080-blog"), forwarded...); !strings.Contains(a.body, "X-Forwarded-For: "+tt.want+"\r\n") {
				t.Errorf("the app sees\n%s", a.body)
			}
			if tt.trusted != nil && tt.want != "127.0.0.1" && !strings.Contains(s.log.String(), "remote="+tt.want) {
				t.Errorf("the log lacks %s", tt.want)
			}
			if a := s.get(s.tap(blog), s.url("8080-blog"), forwarded...); !strings.Contains(a.body, "X-Forwarded-For: 127.0.0.1\r\n") {
				t.Errorf("of a VM the app sees\n%s", a.body)
			}
		})
	}
}

// A tunnel that ends at another host brings the connections of all visitors. The limits of requests
// count these by the addresses that it forwards.
func TestTrustedProxyOnAnotherHostHasNoShare(t *testing.T) {
	fewFiles(t, 2048)
	s := newFarSite(t, func(c *https.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32")}
	})
	wait, app := make(chan struct{}), http.NewServeMux()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer close(wait)
	app.HandleFunc("/wait", func(http.ResponseWriter, *http.Request) { <-wait })
	app.Handle("/", victim())
	s.app(s.vm("blog", public(0)...), 80, app)
	var through []*http.Client
	for range 32 { // a share is 16
		c := s.client()
		transport := c.Transport.(*http.Transport)
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialer := from(1)
			return dialer.DialContext(ctx, "tcp", s.addr)
		}
		through = append(through, c)
		if a := s.get(c, s.url("blog")); a.body != "hello" {
			t.Fatalf("%s: %q", a.Status, a.body)
		}
	}
	if n := s.cut(); n != 0 {
		t.Errorf("%v of %d connections of the proxy were cut off", n, len(through))
	}
	answers := make(chan int, 32)
	for range cap(answers) {
		waiting.Go(func() {
			answers <- s.get(through[0], s.url("blog")+"/wait", "X-Forwarded-For", "198.51.100.1").StatusCode
		})
	}
	if got := <-answers; got != http.StatusTooManyRequests {
		t.Errorf("the first answer to a crowd of one visitor behind the proxy: %d", got)
	}
	if a := s.get(through[0], s.url("blog"), "X-Forwarded-For", "198.51.100.2"); a.StatusCode != http.StatusOK {
		t.Errorf("the next visitor behind the proxy: %s", a.Status)
	}
}

// What a proxy passes on without ending TLS has no header. Its connections have no share either where
// a VM ends TLS itself.
func TestTrustedProxyOnAnotherHostMayPassTLSOn(t *testing.T) {
	const more = 80 // than one peer's share of such connections
	fewFiles(t, 9216)
	s := newFarSite(t, passTo, func(c *https.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32")}
	})
	ownTLS(t, s, s.vm("blog"))
	var all []*tls.Conn
	for n := range more {
		c, err := ownHandshakeFrom(t, s, from(1))
		if err != nil {
			t.Fatalf("connection %d: %v", n+1, err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		alive(t, c)
	}
}
