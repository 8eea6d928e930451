package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Protocol is a server that runs on guarded listeners, such as *imapserver.Server.
type Protocol interface {
	Serve(l net.Listener) error
	Close() error
}

// Server runs a Protocol behind a Listener for each call of Serve. All fields must be set before.
type Server struct {
	Name     string // of the protocol, for errors
	Protocol Protocol
	Limits   Limits
	Replies  Replies

	mu        sync.Mutex
	listeners []*Listener
	closed    bool
}

// Serve serves l until Shutdown, and returns nil then.
func (s *Server) Serve(l net.Listener) error {
	g := NewListener(l, s.Limits, s.Replies)
	if !s.add(g) {
		return l.Close()
	}
	if err := s.Protocol.Serve(g); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve %s: %w", s.Name, err)
	}
	return nil
}

// add reports whether the server is still open.
func (s *Server) add(l *Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.listeners = append(s.listeners, l)
	}
	return !s.closed
}

// Shutdown stops listening, ends idle connections, and lets transfers finish. When ctx ends it cuts
// what is left, and returns the context's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		_ = l.Drain() // it fails only on a listener that is closed already
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var err error
	for _, l := range listeners {
		for l.Count() > 0 && err == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
				err = fmt.Errorf("shut down %s: %w", s.Name, ctx.Err())
			}
		}
		l.Cut()
	}
	_ = s.Protocol.Close() // its listeners are closed already
	return err
}
