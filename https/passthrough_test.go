package https_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// passTo is a Config.Passthrough that leads names below own.example to port 8443 of a VM.
func passTo(c *https.Config) {
	c.Passthrough = func(sni string) (gateway.VM, uint16, bool) {
		vm, ok := c.Directory.ByName("blog")
		return vm, 8443, ok && strings.HasSuffix(sni, "own.example")
	}
}

// ownTLS is an app that ends TLS itself, with its own certificate.
func ownTLS(t *testing.T, s *site, vm gateway.VM, protocols ...string) *httptest.Server {
	t.Helper()
	app := httptest.NewUnstartedServer(echo("own"))
	app.EnableHTTP2 = true
	app.TLS = &tls.Config{NextProtos: protocols, MinVersion: tls.VersionTLS12}
	app.StartTLS()
	t.Cleanup(app.Close)
	s.backend(vm, 8443, app.Listener.Addr().String())
	return app
}

func TestVMEndsItsOwnTLS(t *testing.T) {
	s := newSite(t, passTo)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, echo("plain"))
	app := ownTLS(t, s, blog)
	transport := app.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = "www.own.example"
	transport.TLSClientConfig.InsecureSkipVerify = true //nolint:gosec // the certificate is compared below
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	}
	t.Cleanup(transport.CloseIdleConnections)
	a := s.get(&http.Client{Transport: transport}, "https://www.own.example/")
	if !a.TLS.PeerCertificates[0].Equal(app.Certificate()) || a.ProtoMajor != 2 || a.Header.Get("App") != "own" {
		t.Errorf("%s from %q, certificate of %v", a.Proto, a.Header.Get("App"), a.TLS.PeerCertificates[0].DNSNames)
	}
	if a := s.get(s.client(), s.url("blog")); a.Header.Get("App") != "plain" { // other names are served as ever
		t.Errorf("blog's page: %s %s", a.Status, a.body)
	}
	if c, err := handshake(s, s.addr, "own.example.org"); err == nil {
		t.Errorf("a name of nobody: %v", c.ConnectionState().PeerCertificates[0].DNSNames)
	}
}

// The VM answers an ACME challenge for its name (RFC 8737), and a ClientHello may come in pieces.
func TestChallengesReachTheVM(t *testing.T) {
	s := newSite(t, passTo)
	app := ownTLS(t, s, s.vm("blog"), "acme-tls/1")
	raw := dialRaw(t, s.addr)
	c := tls.Client(dripping{raw}, &tls.Config{
		ServerName: "own.example", NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true, //nolint:gosec // the certificate is compared
	})
	gatewaytest.Must(t, c.HandshakeContext(t.Context()))
	if state := c.ConnectionState(); state.NegotiatedProtocol != "acme-tls/1" || !state.PeerCertificates[0].Equal(app.Certificate()) {
		t.Errorf("%q, certificate of %v", state.NegotiatedProtocol, state.PeerCertificates[0].DNSNames)
	}
}

// dripping sends one byte per segment.
type dripping struct{ net.Conn }

func (c dripping) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func dialRaw(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	return dialFrom(t, net.Dialer{}, addr)
}

func dialFrom(t *testing.T, dialer net.Dialer, addr string) *net.TCPConn {
	t.Helper()
	c, err := dialer.DialContext(t.Context(), "tcp", addr)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some tests close it earlier
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c.(*net.TCPConn)
}

func ownHandshake(t *testing.T, s *site) (*tls.Conn, error) {
	t.Helper()
	return ownHandshakeFrom(t, s, net.Dialer{})
}

func ownHandshakeFrom(t *testing.T, s *site, dialer net.Dialer) (*tls.Conn, error) {
	t.Helper()
	c := tls.Client(dialFrom(t, dialer, s.addr), &tls.Config{ServerName: "own.example", InsecureSkipVerify: true}) //nolint:gosec // which app answers does not matter
	return c, c.HandshakeContext(t.Context())
}

// A connection that is passed on ends with the VM's run and with the server. The deadline of the
// handshake is not its own.
func TestPassedConnectionsEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*gateway.VM)
		again  bool // a new connection is served
	}{
		"restart":    {func(m *gateway.VM) { m.Incarnation++ }, true},
		"force stop": {func(m *gateway.VM) { m.Desired, m.ForceStop = gateway.Stopped, true }, false},
		"remove":     {func(m *gateway.VM) { m.Desired = gateway.Removed }, false},
		"shutdown":   {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, passTo)
			blog := s.vm("blog")
			ownTLS(t, s, blog)
			c, err := ownHandshake(t, s)
			gatewaytest.Must(t, err)
			if tt.change == nil {
				gatewaytest.Must(t, s.server.Shutdown(t.Context()))
			} else {
				_, err := s.dir.Update(t.Context(), blog.ID, func(m *gateway.VM) error { tt.change(m); return nil })
				gatewaytest.Must(t, err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the open connection: %v, want a reset", err)
			}
			if tt.change == nil {
				return
			}
			if _, err := ownHandshake(t, s); (err == nil) != tt.again {
				t.Errorf("a new connection: %v, want success %v", err, tt.again)
			}
		})
	}
}

// A connection that is passed on ends when its name leads elsewhere, as after the removal of a custom
// domain, and by no other change.
func TestPassedConnectionsFollowTheirName(t *testing.T) {
	type target struct {
		vm   string
		port uint16
	}
	for name, tt := range map[string]struct {
		to   target
		ends bool
	}{
		"removed":      {target{}, true},
		"another port": {target{"blog", 9443}, true},
		"another VM":   {target{"shop", 8443}, true},
		"the same":     {target{"blog", 8443}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var leads atomic.Pointer[target]
			leads.Store(&target{"blog", 8443})
			s := newSite(t, func(c *https.Config) {
				c.Passthrough = func(string) (gateway.VM, uint16, bool) {
					to := leads.Load()
					vm, ok := c.Directory.ByName(to.vm)
					return vm, to.port, ok
				}
			})
			blog := s.vm("blog")
			s.vm("shop")
			ownTLS(t, s, blog)
			c, err := ownHandshake(t, s)
			gatewaytest.Must(t, err)
			leads.Store(&tt.to)
			_, err = s.dir.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Shares = public(80); return nil })
			gatewaytest.Must(t, err)
			if !tt.ends {
				alive(t, c)
				return
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the open connection: %v, want a reset", err)
			}
		})
	}
}

// alive fails unless the app answers on c.
func alive(t *testing.T, c *tls.Conn) {
	t.Helper()
	if res := exchange(t, c, bufio.NewReader(c), "GET / HTTP/1.1\r\nHost: own.example\r\n\r\n"); res.Header.Get("App") != "own" {
		t.Errorf("an open connection: %s", res.Status)
	}
}

// One address gets no more than its share, and keeps that; others get theirs.
func TestPassedConnectionsOfOnePeer(t *testing.T) {
	const each = 64
	fewFiles(t, 9216) // 72 places for each address in package conns
	s := newFarSite(t, passTo)
	ownTLS(t, s, s.vm("blog"))
	var all []*tls.Conn
	for range each {
		c, err := ownHandshakeFrom(t, s, from(1))
		gatewaytest.Must(t, err)
		all = append(all, c)
	}
	if _, err := ownHandshakeFrom(t, s, from(1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one more of the same address: %v, want a reset", err)
	}
	if _, err := ownHandshakeFrom(t, s, from(2)); err != nil {
		t.Errorf("another address: %v", err)
	}
	for _, c := range all {
		alive(t, c)
		gatewaytest.Must(t, c.Close())
	}
	gatewaytest.Eventually(t, func() error {
		_, err := ownHandshakeFrom(t, s, from(1))
		return err
	})
}

// They have places in package conns like all others: those of one address displace each other.
func TestPassedConnectionsKeepTheirPlaces(t *testing.T) {
	fewFiles(t, 2048) // 16 for each address
	s := newFarSite(t, passTo)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, victim())
	ownTLS(t, s, blog)
	first, err := ownHandshakeFrom(t, s, from(1))
	gatewaytest.Must(t, err)
	for range 16 {
		_, _ = ownHandshakeFrom(t, s, from(1)) // the VM's quota may refuse the last
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection that is idle the longest: %v, want a reset", err)
	}
	if _, err := s.visit(true); err != nil {
		t.Errorf("a page for another address: %v", err)
	}
}

// The VM gets what the client sent, byte for byte, or nothing.
func FuzzClientHello(f *testing.F) {
	var passed atomic.Int32
	s := newSite(f, func(c *https.Config) {
		passTo(c)
		lead := c.Passthrough
		c.Passthrough = func(sni string) (gateway.VM, uint16, bool) {
			vm, port, ok := lead(sni)
			if ok {
				passed.Add(1)
			}
			return vm, port, ok
		}
	})
	app := listen(f)
	s.backend(s.vm("blog"), 8443, app.Addr().String())
	received := make(chan []byte, 1)
	go func() {
		for {
			c, err := app.Accept()
			if err != nil {
				return
			}
			got, _ := io.ReadAll(c) // what arrived is compared
			received <- got
			_ = c.Close() // as above
		}
	}()
	for _, sni := range []string{"own.example", "blog.lodge.localhost", ""} {
		hello := helloOf(f, sni)
		f.Add(hello)
		f.Add(append(slices.Clone(hello), "early data"...))
		f.Add(hello[:len(hello)/2])
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		before := passed.Load()
		c := dialRaw(t, s.addr)
		_, _ = c.Write(sent)          // the server may close at once
		_ = c.CloseWrite()            // as above
		_, _ = io.Copy(io.Discard, c) // until the connection is closed
		if passed.Load() == before {
			select {
			case got := <-received:
				t.Errorf("the VM got %x of a connection that was not passed on", got)
			default:
			}
			return
		}
		if got := <-received; string(got) != string(sent) {
			t.Errorf("sent %x, the VM got %x", sent, got)
		}
	})
}

// helloOf is the ClientHello of crypto/tls for a name.
func helloOf(tb testing.TB, sni string) []byte {
	tb.Helper()
	ours, theirs := net.Pipe()
	go func() {
		c := tls.Client(theirs, &tls.Config{ServerName: sni, InsecureSkipVerify: true}) //nolint:gosec // nobody answers
		_ = c.HandshakeContext(tb.Context())                                            // it fails when the pipe closes
	}()
	defer ours.Close()
	buf := make([]byte, 16<<10)
	n, err := ours.Read(buf)
	gatewaytest.Must(tb, err)
	return buf[:n]
}
