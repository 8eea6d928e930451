package conns

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime/debug"
	"sync"
)

// Listener guards the connections of l. With a TLS configuration, Accept returns *tls.Conn after the
// handshake, which may have failed: net/http gets its error, and logs it. When l is closed, Accept
// returns what is under way first. Close drops it. The configuration must not be that of the
// http.Server, which changes it. Its GetConfigForClient may return a Pass.
func (g *Guard) Listener(l net.Listener, config *tls.Config) net.Listener {
	if config == nil {
		return &plain{l, g}
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := &overTLS{Listener: l, guard: g, config: deciding(config), results: make(chan result), closed: ctx.Done(), cancel: cancel}
	go over.accept(ctx) // it ends when l is closed, and Accept waits for it
	return over
}

type plain struct {
	net.Listener
	guard *Guard
}

func (l *plain) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err // net/http looks for net.ErrClosed and net.Error
	}
	return l.guard.admit(raw, false), nil
}

type overTLS struct {
	net.Listener
	guard   *Guard
	config  *tls.Config
	results chan result
	closed  <-chan struct{}
	cancel  func()
}

type result struct {
	conn net.Conn
	err  error
}

func (l *overTLS) Accept() (net.Conn, error) {
	select {
	case r, ok := <-l.results:
		if !ok {
			return nil, net.ErrClosed
		}
		return r.conn, r.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *overTLS) Close() error {
	l.cancel()
	return l.Listener.Close()
}

// accept makes a handshake with each connection until the listener beneath is closed.
func (l *overTLS) accept(ctx context.Context) {
	defer close(l.results)
	var shaking sync.WaitGroup
	defer shaking.Wait()
	for {
		raw, err := l.Listener.Accept()
		switch {
		case err == nil:
			c := l.guard.admit(raw, true)
			shaking.Go(func() { l.shake(ctx, c) })
		case errors.Is(err, net.ErrClosed):
			return
		case !l.deliver(result{nil, err}): // net/http pauses after a temporary error
			return
		}
	}
}

// shake makes the handshake of c.
func (l *overTLS) shake(ctx context.Context, c *Conn) {
	defer func() {
		if p := recover(); p != nil {
			l.guard.logger.Error("tls handshake panicked", "err", p, "stack", string(debug.Stack()))
			_ = c.Close() // nothing was agreed
		}
	}()
	heard := &hello{}
	c.hello = heard
	over := tls.Server(c, l.config)
	err := over.HandshakeContext(ctx) // net/http asks again, and gets the same error
	c.hello = nil
	l.guard.shaken(c)
	if to, ok := errors.AsType[*Pass](err); ok {
		l.guard.pass(c, heard.read, to)
		return
	}
	if !l.deliver(result{over, nil}) {
		_ = c.Close() // no server takes it
	}
}

// deliver is false when the listener is closed.
func (l *overTLS) deliver(r result) bool {
	select {
	case l.results <- r:
		return true
	case <-l.closed:
		return false
	}
}
