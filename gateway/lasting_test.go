package gateway_test

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"

	"lodge/gateway"
)

// shortOf is a real listener on a host that is out of something for some time, which its error names.
type shortOf struct {
	net.Listener
	mu   sync.Mutex
	errs []error
}

func (l *shortOf) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: err}
	}
	return l.Listener.Accept()
}

func TestLasting(t *testing.T) {
	beneath, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := gateway.Lasting(&shortOf{Listener: beneath, errs: []error{syscall.EMFILE, syscall.ENOMEM, syscall.ENOBUFS}})
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close() // it was accepted, which is the purpose
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
