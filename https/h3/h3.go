// Package h3 serves HTTP/3 (RFC 9114) with the handler of the other versions.
//
// A connection is counted in package conns as TCP connections are: it takes a place there once its
// handshake is complete, which others may displace, and its requests have to make progress. Before that,
// handshakes have a limit per address and in all. An address that many handshakes are under way for has
// to prove that it receives packets (Retry, RFC 9000 §8.1.2).
//
// There is no 0-RTT, since it can be replayed, no datagram and no tunnel. Connections end with the
// daemon: clients then use TCP.
package h3

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/https/conns"
)

// Limits of one connection, and of those that are not there yet.
const (
	handshakeTime     = 3 * time.Second
	handshakesPerPeer = 32
	maxHandshakes     = 1024
	freeHandshakes    = 64 // under way, until addresses are validated
	maxStreams        = 100
	maxControlStreams = 8       // RFC 9114 §6.2 has three
	streamWindow      = 1 << 20 // bytes on their way, as for HTTP/2
	connWindow        = 2 << 20
)

// Config is what a Server needs. All fields are required.
type Config struct {
	Handler        http.Handler // conns.Handler
	TLS            *tls.Config
	Guard          *conns.Guard
	MaxHeaderBytes int
	IdleTime       time.Duration // without a request or a packet
	DrainTime      time.Duration // how long Shutdown waits for connections without a request
	Logger         *slog.Logger
}

// Server serves HTTP/3. It is safe for concurrent use; make it with New.
type Server struct {
	Config
	http       *http3.Server
	handshakes *limit.Limit[gateway.Peer]
	requests   atomic.Int64
	over       chan struct{} // closed at the end of Shutdown

	mu      sync.Mutex
	closed  bool // by Shutdown; guarded by mu
	serving sync.WaitGroup
}

// New returns a Server. Call Shutdown when done, also if it never served.
func New(cfg Config) *Server {
	s := &Server{Config: cfg, handshakes: limit.New[gateway.Peer](handshakesPerPeer, maxHandshakes), over: make(chan struct{})}
	s.http = &http3.Server{
		Handler: http.HandlerFunc(s.serve), MaxHeaderBytes: cfg.MaxHeaderBytes, IdleTimeout: cfg.IdleTime, Logger: cfg.Logger,
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			return conns.Context(ctx, newcomerOf(c).guarded)
		},
	}
	return s
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	defer s.requests.Add(-1)
	s.Handler.ServeHTTP(w, r)
}

// Serve serves c until Shutdown, and closes it.
func (s *Server) Serve(c net.PacketConn) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return c.Close()
	}
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	transport := &quic.Transport{Conn: c, VerifySourceAddress: s.busy, ConnContext: s.begin}
	l, err := transport.Listen(http3.ConfigureTLSConfig(s.TLS), &quic.Config{
		HandshakeIdleTimeout: handshakeTime / 2, // quic-go ends a handshake after twice this
		MaxIdleTimeout:       s.IdleTime,
		MaxIncomingStreams:   maxStreams, MaxIncomingUniStreams: maxControlStreams,
		MaxStreamReceiveWindow: streamWindow, MaxConnectionReceiveWindow: connWindow,
	})
	if err != nil {
		return errors.Join(err, c.Close())
	}
	err = s.http.ServeListener(&listener{l, s})
	err = errors.Join(err, l.Close()) // what it has accepted goes on
	if errors.Is(err, http.ErrServerClosed) {
		<-s.over
		err = nil
	}
	return errors.Join(err, transport.Close(), c.Close())
}

// busy reports whether a newcomer's address has to be validated.
func (s *Server) busy(net.Addr) bool {
	_, all := s.handshakes.Held(gateway.Peer{})
	return all >= freeHandshakes
}

// newcomer is a connection from its first packet on.
type newcomer struct {
	leave   func() // the limit on handshakes
	guarded *conns.Conn
}

type newcomerKey struct{}

func newcomerOf(c *quic.Conn) *newcomer {
	return c.Context().Value(newcomerKey{}).(*newcomer) // of begin
}

var errHandshakes = errors.New("too many handshakes are under way")

// begin counts a handshake until it ends.
func (s *Server) begin(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	from, _ := netip.ParseAddrPort(info.RemoteAddr.String()) // the zero Addr is a peer as well
	leave, ok := s.handshakes.Enter(gateway.PeerAt(from.Addr()))
	if !ok {
		return nil, errHandshakes
	}
	context.AfterFunc(ctx, leave)
	return context.WithValue(ctx, newcomerKey{}, &newcomer{leave: leave}), nil
}

// listener is a http3.QUICListener whose connections have places.
type listener struct {
	*quic.Listener
	server *Server
}

// Accept implements http3.QUICListener.
func (l *listener) Accept(ctx context.Context) (*quic.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	n := newcomerOf(c)
	n.guarded = l.server.Guard.Admit(association{conn: c})
	n.leave()
	context.AfterFunc(c.Context(), func() { _ = n.guarded.Close() }) // it gives the place back
	return c, nil
}

// association is a connection as package conns counts it. Its bytes are those of streams: it has no
// Read, Write or deadlines.
type association struct {
	net.Conn
	conn *quic.Conn
}

func (a association) LocalAddr() net.Addr  { return a.conn.LocalAddr() }
func (a association) RemoteAddr() net.Addr { return a.conn.RemoteAddr() }

// Close ends the connection and all its requests.
func (a association) Close() error {
	return a.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

// Shutdown stops accepting and waits for requests to end. Then, or when ctx ends, it closes all
// connections.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	err := s.shutdown(ctx)
	close(s.over)
	s.serving.Wait()
	return err
}

func (s *Server) shutdown(ctx context.Context) error {
	idle, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		s.untilIdle(ended)
		cancel(errIdle)
	})
	err := s.http.Shutdown(idle)
	close(ended)
	watching.Wait()
	if errors.Is(context.Cause(idle), errIdle) {
		return nil
	}
	return cmp.Or(err, ctx.Err())
}

var errIdle = errors.New("no request is under way")

// untilIdle returns once DrainTime has passed and no request is under way, or ended is closed.
func (s *Server) untilIdle(ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-time.After(s.DrainTime):
	}
	look := time.NewTicker(50 * time.Millisecond) // http.Server.Shutdown polls, too
	defer look.Stop()
	for s.requests.Load() > 0 {
		select {
		case <-ended:
			return
		case <-look.C:
		}
	}
}
