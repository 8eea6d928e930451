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
// carries its VM. Stock servers (net/http, go-imap) accept it unchanged. A VM has one
// connection waiting at a time, so that a busy one takes turns with the others.
type fanIn struct {
	addr  net.Addr
	live  *connLimit
	conns chan *Conn
	done  chan struct{} // closed when, after Close, no VM has a connection waiting

	mu        sync.Mutex
	closed    bool
	vms       map[*perVM]struct{}
	accepting sync.WaitGroup // grows until closed
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
	return &fanIn{addr: addr, live: live, conns: make(chan *Conn), done: make(chan struct{}), vms: map[*perVM]struct{}{}}
}

// Accept implements net.Listener. After Close it returns what was accepted before.
func (f *fanIn) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It leaves newcomers to the next daemon, which gets the VMs' sockets.
// Connections that were accepted stay.
func (f *fanIn) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	for p := range f.vms {
		_ = p.listener.Close() // it ends Accept, which is the purpose
	}
	go func() { // it ends when the waiting connections are taken, or their VMs stopped
		f.accepting.Wait()
		close(f.done)
	}()
	return nil
}

// Addr implements net.Listener.
func (f *fanIn) Addr() net.Addr { return f.addr }

// add accepts from l on behalf of vm until stop or end, or until f is closed.
func (f *fanIn) add(vm Identity, l net.Listener) *perVM {
	p := &perVM{vm: vm, fan: f, listener: l, gone: make(chan struct{}), conns: map[*Conn]struct{}{}}
	var accepting sync.WaitGroup
	p.stop = sync.OnceFunc(func() {
		f.mu.Lock()
		delete(f.vms, p)
		f.mu.Unlock()
		close(p.gone)
		_ = l.Close() // it ends Accept, which is the purpose
		accepting.Wait()
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = l.Close() // nothing was accepted
		return p
	}
	f.vms[p] = struct{}{}
	accepting.Add(1)
	f.accepting.Go(func() {
		defer accepting.Done()
		p.accept()
	})
	return p
}

// perVM is the part of a fanIn that belongs to one VM.
type perVM struct {
	vm       Identity
	fan      *fanIn
	listener net.Listener
	gone     chan struct{} // closed by stop
	stop     func()        // closes the listener and waits; live connections stay

	mu    sync.Mutex
	conns map[*Conn]struct{} // that end closes
}

// acceptPause is the time between two attempts when the host is out of descriptors or memory.
const acceptPause = 50 * time.Millisecond

func (p *perVM) accept() {
	for {
		raw, err := p.listener.Accept()
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

// deliver passes c to Accept; false when the VM's listener is stopped first.
func (p *perVM) deliver(c *Conn) bool {
	select {
	case p.fan.conns <- c:
		return true
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
