package https_test

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// lateListener accepts one connection after it was closed, as a listener does whose Accept returned
// at that moment.
type lateListener struct {
	net.Listener
	late    net.Conn
	serving chan struct{} // closed when a server accepts
	closed  chan struct{}
	once    sync.Once
}

func (l *lateListener) Accept() (net.Conn, error) {
	c := l.late
	if c == nil {
		return nil, net.ErrClosed
	}
	l.late = nil
	close(l.serving)
	<-l.closed
	return c, nil
}

func (l *lateListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// A connection that was accepted when Shutdown began gets its answer.
func TestShutdownAnswersWhatWasAccepted(t *testing.T) {
	s := newSite(t)
	queue := listen(t)
	answered := make(chan string, 1)
	go func() {
		c, err := handshake(s, queue.Addr().String(), s.domain)
		if err != nil {
			answered <- err.Error()
			return
		}
		answered <- rawRequest(t, c, "GET / HTTP/1.1\r\nHost: "+s.domain+"\r\n\r\n")
	}()
	c, err := queue.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l := &lateListener{Listener: queue, late: c, serving: make(chan struct{}), closed: make(chan struct{})}
	s.serve(func() error { return s.server.Serve(l) })
	<-l.serving
	if err := s.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := <-answered; !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("got %q", got)
	}
}
