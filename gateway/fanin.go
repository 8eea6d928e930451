package gateway

import (
	"errors"
	"math"
	"net"
	"sync"
	"syscall"
	"time"

	"lodge/gateway/limit"
)

// fanIn is one net.Listener made of many, one per VM; each accepted connection is a *Conn that
// carries its VM. Stock servers (net/http, go-smtp, go-imap) accept it unchanged. A VM has one
// connection waiting at a time, so that a busy one takes turns with the others.
type fanIn struct {
	addr   net.Addr
	live   *connLimit
	conns  chan *Conn
	closed chan struct{}
	once   sync.Once
}

// connLimit counts live connections, per VM and service and of all together.
type connLimit = limit.Limit[vmService]

type vmService struct {
	vm      ID
	service *fanIn
}

// maxConnsPerVM limits what one VM can hold open per service.
const maxConnsPerVM = 512

func newConnLimit() *connLimit { return limit.New[vmService](maxConnsPerVM, maxConns()) }

// maxConns limits what all VMs together can hold open: half of the process's file descriptors. The
// rest is for what the services themselves open, and for the host's side.
func maxConns() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return maxConnsPerVM // getrlimit(2) fails for bad arguments only
	}
	return int(min(files.Cur/2, math.MaxInt)) //nolint:gosec // the line has the check
}

// newFanIn returns a listener that has no VM yet. addr is the result of its Addr.
func newFanIn(addr net.Addr, live *connLimit) *fanIn {
	return &fanIn{addr: addr, live: live, conns: make(chan *Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (f *fanIn) Accept() (net.Conn, error) {
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
func (f *fanIn) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// Addr implements net.Listener.
func (f *fanIn) Addr() net.Addr { return f.addr }

// add accepts from l on behalf of vm until stop or end.
func (f *fanIn) add(vm Identity, l net.Listener) *perVM {
	p := &perVM{vm: vm, fan: f, gone: make(chan struct{}), conns: map[*Conn]struct{}{}}
	var accepting sync.WaitGroup
	accepting.Go(func() { p.accept(l) })
	p.stop = sync.OnceFunc(func() {
		close(p.gone)
		_ = l.Close() // it ends Accept, which is the purpose
		accepting.Wait()
	})
	return p
}

// perVM is the part of a fanIn that belongs to one VM.
type perVM struct {
	vm   Identity
	fan  *fanIn
	gone chan struct{} // closed by stop
	stop func()        // closes the listener and waits; live connections stay

	mu    sync.Mutex
	conns map[*Conn]struct{} // that end closes
}

// acceptPause is the time between two attempts when the host is out of descriptors or memory.
const acceptPause = 50 * time.Millisecond

func (p *perVM) accept(l net.Listener) {
	for {
		raw, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // EMFILE, ENFILE, ENOMEM are temporary: the VM keeps its service
			select {
			case <-time.After(acceptPause):
				continue
			case <-p.gone:
				return
			}
		}
		if c := p.admit(raw); c == nil || !p.deliver(c) {
			_ = raw.Close() // nothing was sent yet
		}
	}
}

// admit makes raw one of the VM's live connections; nil when there are too many.
func (p *perVM) admit(raw net.Conn) *Conn {
	leave, ok := p.fan.live.Enter(vmService{p.vm.ID, p.fan})
	if !ok {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &Conn{Conn: raw, vm: p.vm}
	c.release = func() {
		leave()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
	}
	p.conns[c] = struct{}{}
	return c
}

// deliver passes c to Accept; false when the service or the VM's listener is closed first.
func (p *perVM) deliver(c *Conn) bool {
	select {
	case p.fan.conns <- c:
		return true
	case <-p.fan.closed:
	case <-p.gone:
	}
	c.release()
	return false
}

// end stops accepting and closes the live connections.
func (p *perVM) end() {
	p.stop() // waits, so that no connection is added any more
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Conn.Close() // its server sees the error
	}
}
