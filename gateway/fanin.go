package gateway

import (
	"net"
	"sync"
)

// FanIn is one net.Listener made of many, one per VM; each accepted connection is a *Conn that carries its VM. It hands
// stock servers (net/http, go-smtp, go-imap) what they expect.
type FanIn struct {
	addr   net.Addr
	conns  chan *Conn
	closed chan struct{}
	once   sync.Once
}

// NewFanIn returns a listener that has no VM yet. addr is what its Addr says.
func NewFanIn(addr net.Addr) *FanIn {
	return &FanIn{addr: addr, conns: make(chan *Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (f *FanIn) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections that were accepted stay.
func (f *FanIn) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// Addr implements net.Listener.
func (f *FanIn) Addr() net.Addr { return f.addr }

// Add accepts from l on behalf of vm until the returned function is called, which also ends the live connections.
func (f *FanIn) Add(vm VM, l net.Listener) (remove func()) {
	live := &liveConns{conns: map[net.Conn]struct{}{}}
	gone, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed: a listener on a tap has no other way to end, and a lost tap reopens through Doors
			}
			if tracked, ok := live.track(c); !ok || !f.hand(NewConn(tracked, vm), gone) {
				_ = c.Close() // refused before a word was said
			}
		}
	}()
	return sync.OnceFunc(func() {
		_ = l.Close() // it ends Accept, which is all that is wanted
		close(gone)
		live.end()
		<-done
	})
}

// hand passes c to Accept; false when the service or the VM goes first.
func (f *FanIn) hand(c *Conn, gone <-chan struct{}) bool {
	select {
	case f.conns <- c:
		return true
	case <-f.closed:
		return false
	case <-gone:
		return false
	}
}

// liveConns are the open connections of one VM to one service.
type liveConns struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
	ended bool
}

// maxConnsPerVM limits what one VM can hold open per service.
const maxConnsPerVM = 512

func (l *liveConns) track(c net.Conn) (net.Conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.conns) >= maxConnsPerVM {
		return nil, false
	}
	l.conns[c] = struct{}{}
	return &trackedConn{Conn: c, live: l}, true
}

func (l *liveConns) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for c := range l.conns {
		_ = c.Close() // ending it is the point; its server sees the error
	}
}

type trackedConn struct {
	net.Conn
	live *liveConns
}

func (c *trackedConn) Close() error {
	c.live.mu.Lock()
	delete(c.live.conns, c.Conn)
	c.live.mu.Unlock()
	return c.Conn.Close()
}

// NetConn gives the connection beneath, as tls.Conn does.
func (c *trackedConn) NetConn() net.Conn { return c.Conn }
