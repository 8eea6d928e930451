// Package sshagent is an ssh-agent with one key, by which programs log in that cannot read the
// private key: ssh lists the key and has the agent sign.
//
// A Server answers the connections of a listener, which alone decides who may connect. Of the
// protocol (draft-ietf-sshm-ssh-agent) it has two requests, list and sign; any other fails. A
// connection that ssh forwards to another host is closed, so that no guest can use the key; ssh
// announces that since OpenSSH 8.9.
//
// It never adds, removes, locks or returns a private key, and reads no request above 256 KiB.
package sshagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh/agent"
)

const (
	// maxConns is how many connections may be open. One more closes the one that is idle longest.
	maxConns = 128
	// maxIdle is how long a request and its reply may take: sshd's default LoginGraceTime, after
	// which no login needs the connection.
	maxIdle = 2 * time.Minute
	// acceptPause is the time between two attempts when the host is out of descriptors or memory.
	acceptPause = 50 * time.Millisecond
)

// Server answers for one key. It is safe for concurrent use; make one with New.
type Server struct {
	keys agent.Agent
	blob []byte // the public key as SSH sends it (RFC 4253 §6.6)
	log  *slog.Logger

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]time.Time // since when each waits for a request
	down     bool
	running  sync.WaitGroup // the sessions
	stopped  chan struct{}  // closed by Shutdown
}

// New returns a Server for a private key of a type that agent.AddedKey has.
func New(key any, comment string, log *slog.Logger) (*Server, error) {
	ring := agent.NewKeyring()
	err := ring.Add(agent.AddedKey{PrivateKey: key, Comment: comment})
	if err != nil {
		return nil, fmt.Errorf("make ssh agent: %w", err)
	}
	keys, err := ring.List()
	if err != nil {
		return nil, fmt.Errorf("make ssh agent: %w", err)
	}
	return &Server{
		keys: struct{ agent.Agent }{ring}, // without the methods of agent.ExtendedAgent
		blob: keys[0].Blob, log: log,
		conns: map[net.Conn]time.Time{}, stopped: make(chan struct{}),
	}, nil
}

// Serve answers on l until Shutdown; then it returns nil. Call it once.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	down := s.down
	s.listener = l
	s.mu.Unlock()
	if down {
		return l.Close()
	}
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			s.start(c)
			continue
		case errors.Is(err, net.ErrClosed):
			return nil
		}
		select { // EMFILE, ENFILE and ENOMEM are temporary
		case <-time.After(acceptPause):
		case <-s.stopped:
			return nil
		}
	}
}

// Shutdown stops listening, lets requests that have arrived finish, and closes what is left when
// ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.down {
		s.down = true
		close(s.stopped)
	}
	if s.listener != nil {
		_ = s.listener.Close() // it may be closed already
	}
	for c := range s.conns {
		_ = c.SetReadDeadline(time.Now()) // it fails only on a closed connection
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close() // it ends the session, which is the purpose
	}
	s.mu.Unlock()
	<-ended
	return fmt.Errorf("shut down ssh agent: %w", ctx.Err())
}

// start runs the session of c.
func (s *Server) start(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		_ = c.Close() // nothing was read
		return
	}
	if len(s.conns) >= maxConns {
		s.closeIdlest()
	}
	s.conns[c] = time.Now()
	s.running.Go(func() { s.session(c) })
}

// closeIdlest closes the connection that waits longest for a request. The caller holds s.mu.
func (s *Server) closeIdlest() {
	var idlest net.Conn
	for c, since := range s.conns {
		if idlest == nil || since.Before(s.conns[idlest]) {
			idlest = c
		}
	}
	delete(s.conns, idlest)
	_ = idlest.Close() // it ends the session, which is the purpose
}

// await begins the time of the next request. It is false when c must end.
func (s *Server) await(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, open := s.conns[c]; !open || s.down {
		return false
	}
	now := time.Now()
	s.conns[c] = now
	return c.SetDeadline(now.Add(maxIdle)) == nil
}

// end closes c.
func (s *Server) end(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	_ = c.Close() // the session is over
}
