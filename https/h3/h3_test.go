package h3

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https/conns"
)

func newServer(t *testing.T) (*Server, net.Addr) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	gatewaytest.Must(t, err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"blog.example"}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	gatewaytest.Must(t, err)
	guard := conns.New(conns.Places(), func(netip.Addr) bool { return false }, func(conns.Reason) {}, slog.New(slog.DiscardHandler))
	t.Cleanup(guard.Close)
	s := New(Config{
		Handler:   conns.Handler(http.NotFoundHandler()),
		TLS:       &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13},
		Guard:     guard,
		IdleTime:  time.Minute,
		DrainTime: time.Millisecond,
		Logger:    slog.New(slog.DiscardHandler),
	})
	socket := socketAt(t, "127.0.0.1")
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(socket) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		gatewaytest.Must(t, s.Shutdown(ctx))
		gatewaytest.Must(t, <-ended)
	})
	return s, socket.LocalAddr()
}

func socketAt(t *testing.T, addr string) net.PacketConn {
	t.Helper()
	c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", addr+":0")
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some are closed already
	return c
}

// deaf is a socket that receives nothing.
type deaf struct {
	net.PacketConn
	sent atomic.Int32
}

func (c *deaf) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		if _, _, err := c.PacketConn.ReadFrom(p); err != nil {
			return 0, nil, err
		}
	}
}

func (c *deaf) WriteTo(p []byte, to net.Addr) (int, error) {
	c.sent.Add(1)
	return c.PacketConn.WriteTo(p, to)
}

// flood begins handshakes from an address, and continues none. It returns when all have begun.
func flood(t *testing.T, to net.Addr, from string, number int) {
	t.Helper()
	socket := &deaf{PacketConn: socketAt(t, from)}
	transport := &quic.Transport{Conn: socket}
	ctx, cancel := context.WithCancel(t.Context())
	var dialing sync.WaitGroup
	for range number {
		dialing.Go(func() { _, _ = transport.Dial(ctx, to, clientTLS(), nil) }) // it ends with ctx
	}
	gatewaytest.WaitFor(t, "packets of all are sent", func() bool { return int(socket.sent.Load()) >= number })
	t.Cleanup(func() {
		cancel()
		dialing.Wait()
		_ = transport.Close() // nothing is open
	})
}

// visit makes a handshake from an address.
func visit(t *testing.T, to net.Addr, from string) {
	t.Helper()
	c, err := (&quic.Transport{Conn: socketAt(t, from)}).Dial(t.Context(), to, clientTLS(), nil)
	if err != nil {
		t.Fatalf("%s: %v", from, err)
	}
	_ = c.CloseWithError(0, "") // it was accepted
}

func clientTLS() *tls.Config {
	return &tls.Config{ServerName: "blog.example", InsecureSkipVerify: true, NextProtos: []string{"h3"}, MinVersion: tls.VersionTLS13} //nolint:gosec // who answers does not matter
}

// Handshakes that do not proceed leave others theirs: an address has some, and above a number of all,
// only addresses that receive packets have any.
func TestHandshakesOfOneAddress(t *testing.T) {
	s, addr := newServer(t)
	flood(t, addr, "127.0.1.1", 2*handshakesPerPeer)
	visit(t, addr, "127.0.1.8") // its packets came after those
	peer := gateway.PeerAt(netip.MustParseAddr("127.0.1.1"))
	if held, _ := s.handshakes.Held(peer); held == 0 || held > handshakesPerPeer {
		t.Errorf("one address has %d handshakes", held)
	}
	for _, from := range []string{"127.0.1.2", "127.0.1.3"} {
		flood(t, addr, from, 2*handshakesPerPeer)
	}
	gatewaytest.WaitFor(t, "addresses are validated", func() bool { return s.busy(nil) })
	visit(t, addr, "127.0.1.9")
	visit(t, addr, "127.0.1.10")
	if _, all := s.handshakes.Held(peer); all > freeHandshakes+2 { // with those above
		t.Errorf("%d handshakes are under way, most from addresses that may not exist", all)
	}
	gatewaytest.WaitFor(t, "they end", func() bool { _, all := s.handshakes.Held(peer); return all == 0 })
}
