package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// drainTime is how long connections stay open in Shutdown without a request. Clients are on the host
// or its taps, so that no request is on its way for longer.
const drainTime = 500 * time.Millisecond

// DrainedServer is an http.Server whose Shutdown loses no request. The one of net/http closes idle
// connections at once, also when a request is on its way there. Here responses announce the close
// (RFC 9112 §9.6), and connections that stay idle are closed after drainTime.
type DrainedServer struct {
	http     *http.Server
	draining atomic.Bool
	serving  sync.WaitGroup // grows until closed

	mu     sync.Mutex
	closed bool
	listen []net.Listener
	conns  map[net.Conn]struct{}
	none   chan struct{} // closed when no connection is left, in Shutdown
}

// NewDrainedServer returns a DrainedServer for s, whose ConnState must not be set.
func NewDrainedServer(s *http.Server) *DrainedServer {
	d := &DrainedServer{http: s, conns: map[net.Conn]struct{}{}, none: make(chan struct{})}
	handler := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
	s.ConnState = d.state
	return d
}

func (d *DrainedServer) state(c net.Conn, state http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch state {
	case http.StateNew:
		d.conns[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(d.conns, c)
		d.ended()
	}
}

// ended closes none, once. The caller holds mu.
func (d *DrainedServer) ended() {
	if d.closed && len(d.conns) == 0 {
		select {
		case <-d.none:
		default:
			close(d.none)
		}
	}
}

// Serve serves l until Shutdown; then it returns nil.
func (d *DrainedServer) Serve(l net.Listener) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		_ = l.Close() // nothing was accepted
		return nil
	}
	l = onceClosed{l, sync.OnceValue(l.Close)}
	d.listen = append(d.listen, l)
	d.serving.Add(1)
	d.mu.Unlock()
	err := d.http.Serve(l)
	d.serving.Done()
	if d.draining.Load() && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// onceClosed is a listener that both a DrainedServer and its http.Server close.
type onceClosed struct {
	net.Listener
	once func() error
}

// Close implements net.Listener.
func (l onceClosed) Close() error { return l.once() }

// Shutdown stops accepting, lets requests finish, and closes what is left when ctx ends.
func (d *DrainedServer) Shutdown(ctx context.Context) error {
	d.mu.Lock()
	d.draining.Store(true)
	d.closed = true
	for _, l := range d.listen {
		_ = l.Close() // Serve returns because of it
	}
	d.mu.Unlock()
	d.serving.Wait() // so that conns has all that was accepted
	d.mu.Lock()
	d.ended()
	d.mu.Unlock()
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-d.none:
	case <-timer.C:
	case <-ctx.Done():
	}
	if err := d.http.Shutdown(ctx); err != nil {
		return errors.Join(err, d.http.Close())
	}
	return nil
}
