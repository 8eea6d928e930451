package gateway

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Lasting returns l with an Accept that fails only when l is closed. Other errors are the host's, out
// of descriptors or memory, and temporary: it pauses and tries again. net/http does so for
// descriptors alone.
func Lasting(l net.Listener) net.Listener { return &lasting{Listener: l, closed: make(chan struct{})} }

type lasting struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *lasting) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return c, err //nolint:wrapcheck // servers look for net.ErrClosed
		}
		select {
		case <-time.After(acceptPause):
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// Close implements net.Listener.
func (l *lasting) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close() //nolint:wrapcheck // as Accept
}
