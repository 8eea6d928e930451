package gateway

import (
	"errors"
	"net"
	"sync"
	"time"
)

// FanIn is one net.Listener made of many, one per VM; each accepted connection is a *Conn that carries its VM. It hands
// stock servers (net/http, go-smtp, go-imap) what they expect. A VM has one connection waiting at a time, so that a busy
// one takes turns with the others.
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
	case <-f.closed: // first: nothing is accepted after Close, even if a connection waits
		return nil, net.ErrClosed
	default:
	}
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
func (f *FanIn) Add(vm Identity, l net.Listener) (remove func()) { return f.add(vm, l).end }

func (f *FanIn) add(vm Identity, l net.Listener) *perVM {
	b := &perVM{vm: vm, gone: make(chan struct{}), live: map[*Conn]struct{}{}}
	var accepting sync.WaitGroup
	accepting.Go(func() { b.accept(l, f) })
	b.stop = sync.OnceFunc(func() {
		close(b.gone)
		_ = l.Close() // it ends Accept, which is all that is wanted
		accepting.Wait()
	})
	return b
}

// perVM is the part of a FanIn that belongs to one VM.
type perVM struct {
	vm   Identity
	gone chan struct{} // closed by stop
	stop func()        // closes the listener and waits; live connections stay

	mu   sync.Mutex
	live map[*Conn]struct{}
}

// maxConnsPerVM limits what one VM can hold open per service.
const maxConnsPerVM = 512

// acceptPause is the time between two tries when the host is out of descriptors or memory.
const acceptPause = 50 * time.Millisecond

func (b *perVM) accept(l net.Listener, f *FanIn) {
	for {
		raw, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // EMFILE, ENFILE, ENOMEM: it passes, and the VM must not lose its service over it
			select {
			case <-time.After(acceptPause):
				continue
			case <-b.gone:
				return
			}
		}
		if c := b.track(raw); c == nil || !b.hand(c, f) {
			_ = raw.Close() // refused before a word was said
		}
	}
}

// hand passes c to f.Accept; false when the service or the VM goes first.
func (b *perVM) hand(c *Conn, f *FanIn) bool {
	select {
	case f.conns <- c:
		return true
	case <-f.closed:
	case <-b.gone:
	}
	b.release(c)
	return false
}

// track makes raw one of the VM's live connections; nil when it has too many.
func (b *perVM) track(raw net.Conn) *Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.live) >= maxConnsPerVM {
		return nil
	}
	c := &Conn{Conn: raw, vm: b.vm, counted: b}
	b.live[c] = struct{}{}
	return c
}

func (b *perVM) release(c *Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.live, c)
}

// end stops the counted and ends its live connections.
func (b *perVM) end() {
	b.stop() // waits, so that no connection is added any more
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.live {
		_ = c.Conn.Close() // ending it is the point; its server sees the error
	}
}
