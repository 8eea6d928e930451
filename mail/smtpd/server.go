package smtpd

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"

	"lodge/mail/guard"
)

// Server is an SMTP server. Make it with New.
type Server struct {
	config  Config
	guard   *guard.Server
	rates   *rates
	buffers sync.Pool // of *bufio.Writer, for messages
}

// New returns a server that does not listen yet.
func New(config Config) *Server {
	s := &Server{config: config, rates: newRates(config.Limits.Rates)}
	s.buffers.New = func() any { return bufio.NewWriterSize(io.Discard, messageBufferBytes) }
	s.guard = &guard.Server{
		Name: "smtp", Protocol: &sessions{server: s}, Limits: config.Limits.Limits,
		Replies: guard.Replies{
			Busy: "421 4.7.0 Too many connections, try again later",
			HTTP: "554 5.5.1 This is SMTP, not HTTP",
		},
	}
	return s
}

// Serve receives mail on l until Shutdown, and returns nil then.
func (s *Server) Serve(l net.Listener) error { return s.guard.Serve(l) }

// Shutdown stops listening, ends idle sessions, and lets messages that are coming in finish. When ctx
// ends it cuts what is left, and returns the context's error.
func (s *Server) Shutdown(ctx context.Context) error { return s.guard.Shutdown(ctx) }

// sessions is the guard.Protocol of a Server.
type sessions struct {
	server *Server

	mu      sync.Mutex
	cancels []context.CancelFunc // of what the sessions of each listener wait for
}

// Serve runs a session on each connection of l, and returns when l fails and all have ended.
func (p *sessions) Serve(l net.Listener) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p.mu.Lock()
	p.cancels = append(p.cancels, cancel)
	p.mu.Unlock()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return err // guard looks for net.ErrClosed
		}
		running.Go(func() { p.server.serve(ctx, c.(*guard.Conn)) }) // guard.Listener returns no other
	}
}

// Close ends what the sessions wait for. The guard has closed their connections.
func (p *sessions) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, cancel := range p.cancels {
		cancel()
	}
	return nil
}
