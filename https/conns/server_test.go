package conns

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// server is a real web server behind a Guard. Its test decides when the guard looks, and at what
// time: an hour ahead shows what may stay for ever.
type server struct {
	t     *testing.T
	guard *Guard
	addr  string
	roots *tls.Config
	ended chan error // of the handlers' reads or writes

	mu   sync.Mutex
	cuts []Reason
}

func newServer(t *testing.T, change ...func(*tls.Config)) *server {
	t.Helper()
	s := &server{t: t, ended: make(chan error, 16)}
	s.guard = New(256, func(netip.Addr) bool { return false }, func(why Reason) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.cuts = append(s.cuts, why)
	}, slog.New(slog.DiscardHandler))
	t.Cleanup(s.guard.Close)
	// its certificate and its client's roots
	model := httptest.NewUnstartedServer(nil)
	model.EnableHTTP2 = true
	model.StartTLS()
	s.roots = model.Client().Transport.(*http.Transport).TLSClientConfig
	config := model.TLS
	model.Close()

	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	web := &http.Server{ //nolint:gosec // the guard has the limits
		Handler: Handler(s.mux()), ConnContext: Context, ConnState: s.guard.State, TLSConfig: config,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	guarded := config.Clone()
	for _, f := range change {
		f(guarded)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = web.Serve(s.guard.Listener(l, guarded)) }) // until Close
	t.Cleanup(func() {
		_ = web.Close() // the test is over
		serving.Wait()
	})
	return s
}

func (s *server) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/read", func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		s.ended <- err
	})
	mux.HandleFunc("/ignore", func(http.ResponseWriter, *http.Request) { s.ended <- nil })
	mux.HandleFunc("/write", func(w http.ResponseWriter, _ *http.Request) {
		part := make([]byte, 1<<20)
		var err error
		for err == nil { // without end
			_, err = w.Write(part)
		}
		s.ended <- err
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush() // the test sees whether it arrives
		<-r.Context().Done()
		s.ended <- r.Context().Err()
	})
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, _ *http.Request) {
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			s.ended <- err
			return
		}
		defer c.Close()
		_, err = io.Copy(c, buffered)
		s.ended <- err
	})
	return mux
}

// sweep looks once, at a time from now.
func (s *server) sweep(ahead time.Duration) { s.guard.sweep(s.guard.now() + int64(ahead)) }

// sweepUntil looks until one thing is cut.
func (s *server) sweepUntil(ahead time.Duration, want Reason) {
	s.t.Helper()
	gatewaytest.Eventually(s.t, func() error {
		s.sweep(ahead)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.cuts) == 0 {
			return errors.New("nothing was cut")
		}
		if s.cuts[0] != want {
			s.t.Fatalf("cut for %s, want %s", s.cuts[0], want)
		}
		return nil
	})
}

// stays fails if a look at that time cuts anything.
func (s *server) stays(ahead time.Duration) {
	s.t.Helper()
	s.sweep(ahead)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cuts) > 0 {
		s.t.Fatalf("cut after %v for %v", ahead, s.cuts)
	}
}

// waiting returns when the server waits for its client in the direction that pick selects.
func (s *server) waiting(pick func(*Conn) *flow) {
	s.t.Helper()
	gatewaytest.Eventually(s.t, func() error {
		s.guard.mu.Lock()
		defer s.guard.mu.Unlock()
		for c := range s.guard.open {
			if f := pick(c); f != nil && f.since.Load() != 0 {
				return nil
			}
		}
		return errors.New("it does not wait")
	})
}

// blocked returns when a write of the server, which pick selects, has no more room.
func (s *server) blocked(pick func(*Conn) *flow) {
	s.t.Helper()
	var since int64
	same := 0
	gatewaytest.WaitFor(s.t, "a write without room", func() bool {
		s.guard.mu.Lock()
		defer s.guard.mu.Unlock()
		for c := range s.guard.open {
			f := pick(c)
			if f == nil || c.shaking.Load() || f != &c.out && c.out.since.Load() != 0 {
				continue
			}
			if now := f.since.Load(); now == 0 || now != since {
				since, same = now, 0
			}
			same++
		}
		return since != 0 && same > 10
	})
}

// idle returns when no handshake and no write is under way, which an hour ahead would be late.
func (s *server) idle() {
	s.t.Helper()
	gatewaytest.WaitFor(s.t, "an idle server", func() bool {
		s.guard.mu.Lock()
		defer s.guard.mu.Unlock()
		for c := range s.guard.open {
			if st := streamOut(c); c.shaking.Load() || c.owesBody.Load() || c.out.since.Load() != 0 || st != nil && st.since.Load() != 0 {
				return false
			}
		}
		return true
	})
}

func (s *server) dial() net.Conn {
	s.t.Helper()
	var dialer net.Dialer
	c, err := dialer.DialContext(s.t.Context(), "tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() }) // the test is over
	return c
}

// http1 sends a request on a connection of its own.
func (s *server) http1(request string) net.Conn {
	s.t.Helper()
	config := s.roots.Clone()
	config.ServerName, config.NextProtos = "example.com", []string{"http/1.1"}
	c := tls.Client(s.dial(), config)
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// http2 is a client with one connection.
func (s *server) http2() *http.Client {
	transport := &http.Transport{TLSClientConfig: s.roots.Clone(), ForceAttemptHTTP2: true}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", s.addr)
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (s *server) do(client *http.Client, path string, body io.Reader, header ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "https://example.com"+path, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return client.Do(r)
}

func in(c *Conn) *flow {
	if c.owesBody.Load() {
		return &c.in
	}
	return nil
}

func handshakeIn(c *Conn) *flow {
	if c.shaking.Load() {
		return &c.in
	}
	return nil
}

func out(c *Conn) *flow { return &c.out }

func streamIn(c *Conn) *flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	for st := range c.streams {
		return &st.in
	}
	return nil
}

func streamOut(c *Conn) *flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	for st := range c.streams {
		return &st.out
	}
	return nil
}
