package https_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// quicSite is a site with HTTP/3.
type quicSite struct {
	*site
	udp net.Addr
}

// newQUICSite wraps the server's socket, if wrap is not nil.
func newQUICSite(t *testing.T, wrap func(net.PacketConn) net.PacketConn, change ...func(*https.Config)) *quicSite {
	t.Helper()
	s := newSite(t, append(change, func(c *https.Config) { c.HTTP3 = true })...)
	socket := listenUDP(t, "127.0.0.1:0")
	q := &quicSite{s, socket.LocalAddr()}
	if wrap != nil {
		socket = wrap(socket)
	}
	s.serve(func() error { return s.server.ServeHTTP3(socket) })
	return q
}

func listenUDP(t *testing.T, addr string) net.PacketConn {
	t.Helper()
	c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", addr)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some are closed already
	return c
}

// dial opens a connection from an address of this host.
func (q *quicSite) dial(t *testing.T, from, host string) (*quic.Conn, error) {
	t.Helper()
	transport := &quic.Transport{Conn: listenUDP(t, from+":0")}
	t.Cleanup(func() { _ = transport.Close() }) // as above
	return transport.Dial(t.Context(), q.udp, q.tls(host), nil)
}

func (q *quicSite) tls(host string) *tls.Config {
	return &tls.Config{ServerName: host, RootCAs: q.roots, NextProtos: []string{"h3"}, MinVersion: tls.VersionTLS13}
}

// client3 is client of HTTP/3, with the cookies of jar.
func (q *quicSite) client3(t *testing.T, from string, jar http.CookieJar) *http.Client {
	t.Helper()
	transport := &http3.Transport{Dial: func(_ context.Context, addr string, _ *tls.Config, _ *quic.Config) (*quic.Conn, error) {
		host, _, _ := net.SplitHostPort(addr)
		return q.dial(t, from, host)
	}}
	t.Cleanup(func() { _ = transport.Close() }) // it is not used again
	return &http.Client{Transport: transport, Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// HTTP/3 is the same web as the other versions.
func TestHTTP3(t *testing.T) {
	q := newQUICSite(t, nil, func(c *https.Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		passDomains(c)
	})
	blog, shop := q.vm("blog", public(0)...), q.vm("shop")
	q.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			sum := sha256.New()
			n, err := io.Copy(sum, r.Body)
			fmt.Fprintf(w, "%d %x %v", n, sum.Sum(nil), err)
			return
		}
		w.WriteHeader(http.StatusEarlyHints)
		echo("app").ServeHTTP(w, r)
	}))
	q.app(shop, 80, echo("shop"))
	q.setDomains(blog, gateway.Domain{Name: "own.example", Port: 8443, Passthrough: true})
	jar, err := cookiejar.New(nil)
	gatewaytest.Must(t, err)
	q.login(q.clientVia(q.addr, jar), shop)
	c := q.client3(t, "127.0.0.1", jar)

	a := q.get(c, q.url("blog")+"/x?y=1", "X-Forwarded-For", "203.0.113.9", "X-Lodge-User", "eve@example.org")
	if a.Proto != "HTTP/3.0" || !strings.Contains(a.body, "uri=/x?y=1\n") || !strings.Contains(a.body, "X-Forwarded-For: 127.0.0.1\r\n") ||
		!strings.Contains(a.body, "X-Forwarded-Proto: https\r\n") || strings.Contains(a.body, "eve@") || len(a.Header["Alt-Svc"]) > 0 {
		t.Errorf("a public page: %s, %v, %s", a.Proto, a.Header, a.body)
	}
	if a := q.get(c, q.url("shop")); a.StatusCode != 200 || !strings.Contains(a.body, "X-Lodge-User: "+owner) {
		t.Errorf("a private page, with a login: %s, %s", a.Status, a.body)
	}
	if a := q.get(q.client3(t, "127.0.0.1", nil), q.url("shop")); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a private page: %s", a.Status)
	}
	const size = 4 << 20
	sent := sha256.New()
	a = q.do(c, http.MethodPost, q.url("blog"), io.TeeReader(io.LimitReader(&cycle{pattern: []byte("a part of a large body")}, size), sent))
	if want := fmt.Sprintf("%d %x <nil>", size, sent.Sum(nil)); a.body != want {
		t.Errorf("an upload: %s, want %s", a.body, want)
	}
	if a := q.do(c, http.MethodConnect, q.url("blog"), nil); a.StatusCode != http.StatusNotImplemented {
		t.Errorf("CONNECT: %s", a.Status)
	}
	for _, host := range []string{"own.example", "shop.example.org", ""} {
		if conn, err := q.dial(t, "127.0.0.1", host); err == nil {
			t.Errorf("%q: the certificate of %v", host, conn.ConnectionState().TLS.PeerCertificates[0].DNSNames)
		}
	}
	_, port, _ := net.SplitHostPort(q.addr)
	if a := q.get(q.client(), q.url("blog")); a.Header.Get("Alt-Svc") != `h3=":`+port+`"; ma=3600` {
		t.Errorf("over TCP: %v", a.Header)
	}
	if a := q.get(q.tap(blog), q.url("blog")); len(a.Header["Alt-Svc"]) > 0 {
		t.Errorf("on a tap: %v", a.Header)
	}
	if a := newSite(t); len(a.get(a.client(), "https://"+a.domain+strings.TrimPrefix(a.addr, "127.0.0.1")).Header["Alt-Svc"]) > 0 {
		t.Error("without HTTP/3 there is an offer of it")
	}
}

// A resumed connection sends nothing that could be replayed.
func TestHTTP3HasNoEarlyData(t *testing.T) {
	q := newQUICSite(t, nil)
	q.app(q.vm("blog", public(0)...), 80, echo("app"))
	config := q.tls("blog." + q.domain)
	tickets := make(chan struct{}, 8)
	config.ClientSessionCache = &signallingCache{tls.NewLRUClientSessionCache(8), tickets}
	transport := &quic.Transport{Conn: listenUDP(t, "127.0.0.1:0")}
	defer transport.Close()
	for i := range 2 {
		c, err := transport.DialEarly(t.Context(), q.udp, config, nil)
		gatewaytest.Must(t, err)
		<-c.HandshakeComplete()
		if state := c.ConnectionState(); state.Used0RTT || state.TLS.DidResume != (i == 1) {
			t.Errorf("connection %d: 0-RTT %v, resumed %v", i+1, state.Used0RTT, state.TLS.DidResume)
		}
		if i == 0 {
			<-tickets
		}
		gatewaytest.Must(t, c.CloseWithError(0, ""))
	}
}

// signallingCache signals each ticket on a channel.
type signallingCache struct {
	tls.ClientSessionCache
	put chan struct{}
}

func (c *signallingCache) Put(key string, state *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, state)
	if state != nil {
		c.put <- struct{}{}
	}
}

// farPackets is a socket to which 127.0.1.n are addresses of strangers.
type farPackets struct{ net.PacketConn }

func (c farPackets) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(p)
	return n, moved(from, net.IPv4(127, 0, 1, 0), net.IPv4(203, 0, 113, 0)), err
}

func (c farPackets) WriteTo(p []byte, to net.Addr) (int, error) {
	return c.PacketConn.WriteTo(p, moved(to, net.IPv4(203, 0, 113, 0), net.IPv4(127, 0, 1, 0)))
}

func moved(addr net.Addr, from, to net.IP) net.Addr {
	udp, ok := addr.(*net.UDPAddr)
	if !ok || !udp.IP.Mask(net.CIDRMask(24, 32)).Equal(from) {
		return addr
	}
	host := to.To4()
	return &net.UDPAddr{IP: net.IPv4(host[0], host[1], host[2], udp.IP.To4()[3]), Port: udp.Port}
}

// Connections have places with those of TCP: the ones of an address displace each other alone.
func TestHTTP3ConnectionsHavePlaces(t *testing.T) {
	fewFiles(t, 2048) // 16 for each address
	q := newQUICSite(t, func(c net.PacketConn) net.PacketConn { return farPackets{c} })
	blog := q.vm("blog", public(0, 8080)...)
	q.app(blog, 80, victim())
	q.app(blog, 8080, http.HandlerFunc(endless))
	other, err := q.dial(t, "127.0.1.2", "blog."+q.domain)
	gatewaytest.Must(t, err)
	stream := q.openStream(q.client3(t, "127.0.1.1", nil), q.url("8080-blog"))
	first, err := q.dial(t, "127.0.1.1", "blog."+q.domain)
	gatewaytest.Must(t, err)
	for range 15 {
		_, err := q.dial(t, "127.0.1.1", "blog."+q.domain)
		gatewaytest.Must(t, err)
	}
	<-first.Context().Done()
	if err := stream(); err != nil {
		t.Errorf("the connection with a request under way: %v", err)
	}
	if other.Context().Err() != nil {
		t.Error("another address lost its connection")
	}
	if a := q.get(q.client3(t, "127.0.1.3", nil), q.url("blog")); a.StatusCode != http.StatusOK {
		t.Errorf("a third one: %s", a.Status)
	}
}

// What is open ends with its permission, and with the server: requests under way get their answer.
func TestHTTP3Ends(t *testing.T) {
	q := newQUICSite(t, nil)
	blog := q.vm("blog", public(0, 8080)...)
	q.app(blog, 8080, http.HandlerFunc(endless))
	begun, release := make(chan struct{}), make(chan struct{})
	q.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(begun)
		<-release
		_, _ = io.WriteString(w, "late") // the test reads it
	}))
	c := q.client3(t, "127.0.0.1", nil)
	stream := q.openStream(c, q.url("8080-blog"))
	_, err := q.dir.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Shares = public(0); return nil })
	gatewaytest.Must(t, err)
	if stream() == nil {
		t.Error("a stream outlived its permission")
	}
	answered := make(chan string, 1)
	go func() {
		res, err := c.Get(q.url("blog")) //nolint:noctx // a test
		if err != nil {
			answered <- err.Error()
			return
		}
		body, err := io.ReadAll(res.Body)
		answered <- fmt.Sprint(string(body), errors.Join(err, res.Body.Close()))
	}()
	<-begun
	idle, err := q.dial(t, "127.0.0.1", "blog."+q.domain)
	gatewaytest.Must(t, err)
	_, err = idle.AcceptUniStream(t.Context()) // it is served
	gatewaytest.Must(t, err)
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() { ended <- q.server.Shutdown(ctx) }()
	gatewaytest.WaitFor(t, "no newcomer is served", func() bool {
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := quic.DialAddr(short, q.udp.String(), q.tls("blog."+q.domain), nil)
		return err != nil
	})
	close(release)
	if got := <-answered; got != "late<nil>" {
		t.Errorf("the request under way: %s", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	<-idle.Context().Done()
}
