package gateway_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"

	"lodge/gateway"
)

// script is a net.Listener with results that the test sends.
type script struct {
	next   chan any // net.Conn or error
	closed chan struct{}
	once   sync.Once
}

func newScript() *script { return &script{next: make(chan any), closed: make(chan struct{})} }

func (s *script) Accept() (net.Conn, error) {
	select {
	case v := <-s.next:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(net.Conn), nil
	case <-s.closed:
		return nil, &net.OpError{Op: "accept", Err: net.ErrClosed}
	}
}

func (s *script) Close() error   { s.once.Do(func() { close(s.closed) }); return nil }
func (s *script) Addr() net.Addr { return &net.TCPAddr{} }

func newFanIn() *gateway.FanIn { return gateway.NewFanIn(512, 1024) }

// After a host was out of descriptors for a moment, a VM's service must work again.
func TestFanInSurvivesAcceptErrors(t *testing.T) {
	f, l, a := newFanIn(), newScript(), vm(1, "alice", "10.213.0.2")
	defer f.Add(a, l)()
	client, server := net.Pipe()
	defer client.Close()
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		l.next <- &net.OpError{Op: "accept", Err: errno}
	}
	l.next <- server
	c, err := f.Accept()
	if err != nil || gateway.IdentityOf(c) != a {
		t.Errorf("accepted %v, %v", gateway.IdentityOf(c), err)
	}
}

func TestFanInRemoveDuringAcceptError(t *testing.T) {
	l := newScript()
	remove := newFanIn().Add(vm(1, "alice", "10.213.0.2"), l)
	l.next <- syscall.EMFILE
	remove() // does not wait for the next try
	remove()
	select {
	case <-l.closed:
	default:
		t.Error("the listener is still open")
	}
}

// A connection that no server takes is closed when its VM goes.
func TestFanInClosesWhatNobodyTakes(t *testing.T) {
	f, l := newFanIn(), newScript()
	remove := f.Add(vm(1, "alice", "10.213.0.2"), l)
	client, server := net.Pipe()
	l.next <- server
	remove()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v, want EOF", err)
	}
}

// A closed service still gets what was accepted, and takes nothing more: that is for the next daemon.
func TestFanInClosed(t *testing.T) {
	f, l, a := newFanIn(), newScript(), vm(1, "alice", "10.213.0.2")
	defer f.Add(a, l)()
	client, server := net.Pipe()
	defer client.Close()
	l.next <- server
	fatal(t, f.Close())
	<-l.closed
	if c, err := f.Accept(); err != nil || gateway.IdentityOf(c) != a {
		t.Errorf("accepted %v, %v", gateway.IdentityOf(c), err)
	}
	if c, err := f.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("then accepted %v, %v", c, err)
	}
	late := newScript()
	defer f.Add(vm(2, "bob", "10.213.0.3"), late)()
	<-late.closed
	fatal(t, f.Close())
}

// A VM that opens connections without end is cut off at the limit, without effect on other VMs;
// closing makes room.
func TestFanInLimitsConnectionsPerVM(t *testing.T) {
	const limit = gateway.MaxConnsPerVM
	f, busy, calm := newFanIn(), newScript(), newScript()
	a, b := vm(1, "alice", "10.213.0.2"), vm(2, "bob", "10.213.0.3")
	defer f.Add(a, busy)()
	defer f.Add(b, calm)()
	connect := func(l *script) (client net.Conn) {
		client, server := net.Pipe()
		l.next <- server
		return client
	}
	var last net.Conn
	for range limit {
		connect(busy)
		var err error
		last, err = f.Accept()
		fatal(t, err)
	}
	if _, err := connect(busy).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("one too many: %v, want EOF", err)
	}
	connect(calm)
	if c, err := f.Accept(); err != nil || gateway.IdentityOf(c) != b {
		t.Errorf("the other VM: %v, %v", gateway.IdentityOf(c), err)
	}
	fatal(t, last.Close())
	connect(busy)
	if c, err := f.Accept(); err != nil || gateway.IdentityOf(c) != a {
		t.Errorf("after one was closed: %v, %v", gateway.IdentityOf(c), err)
	}
}

// All VMs and services together have a limit too, below what the process can open. None takes more
// than it leaves.
func TestFanInLimitsConnectionsOfAll(t *testing.T) {
	const all = 8
	web := gateway.NewFanIn(5, all)
	services := []*gateway.FanIn{web, web.Shared()}
	var accepted, closed []net.Conn
	for i, admitted := range []int{2, 2, 2, 1, 1, 0} {
		l, service := newScript(), services[i%2]
		defer service.Add(vm(uint32(i/2)+1, "guest", "10.213.0.2"), l)()
		for n := range 2 {
			client, server := net.Pipe()
			l.next <- server
			if n < admitted {
				c, err := service.Accept()
				fatal(t, err)
				accepted = append(accepted, c)
				continue
			}
			closed = append(closed, client)
		}
	}
	for _, client := range closed {
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("one too many: %v, want EOF", err)
		}
	}
	if len(accepted) != all {
		t.Errorf("%d connections were accepted, want %d", len(accepted), all)
	}
	fatal(t, accepted[0].Close())
	l := newScript()
	defer web.Add(vm(9, "last", "10.213.0.9"), l)()
	_, server := net.Pipe()
	l.next <- server
	if _, err := web.Accept(); err != nil {
		t.Errorf("after one was closed: %v", err)
	}
	var files syscall.Rlimit
	fatal(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files))
	if got := gateway.MaxConns(); got < 1 || got > int(files.Cur/2) {
		t.Errorf("%d connections of %d descriptors", got, files.Cur)
	}
}

func TestFanInAddrAndClose(t *testing.T) {
	f := newFanIn()
	if got := f.Addr().String(); got != ":80" {
		t.Errorf("Addr is %q", got)
	}
	fatal(t, f.Close())
	fatal(t, f.Close())
	if _, err := f.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
}
