package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// newDrained serves on a loopback port. Requests for /wait end once wait is closed.
func newDrained(t *testing.T, wait <-chan struct{}) (s *gateway.DrainedServer, addr string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	s = gateway.NewDrainedServer(&http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			w.(http.Flusher).Flush()
			<-wait
		}
		_, _ = io.WriteString(w, "hello") // the client reads it
	})})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx) // the test may have done it
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

type keptConn struct {
	net.Conn
	read *bufio.Reader
}

func keep(t *testing.T, addr string) keptConn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // the server may have closed it
	return keptConn{c, bufio.NewReader(c)}
}

func (c keptConn) get(path string) (*http.Response, error) {
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: lodged\r\n\r\n"); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(c.read, nil)
	if err == nil && path != "/wait" {
		_, err = io.Copy(io.Discard, res.Body)
	}
	return res, err
}

// A client that sends its next request while the server shuts down gets an answer: the connection was
// idle, and its client could not know.
func TestDrainedServerAnswersOnIdleConnections(t *testing.T) {
	wait := make(chan struct{})
	s, addr := newDrained(t, wait)
	idle, busy := keep(t, addr), keep(t, addr)
	_, err := idle.get("/")
	gatewaytest.Must(t, err)
	under, err := busy.get("/wait")
	gatewaytest.Must(t, err)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }()
	gatewaytest.WaitFor(t, "no more connections", func() bool {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close() // accepted before
		}
		return err != nil
	})
	if res, err := idle.get("/"); err != nil || res.StatusCode != http.StatusOK || !res.Close {
		t.Errorf("the next request: %v, %v", res, err)
	}
	close(wait)
	if body, err := io.ReadAll(under.Body); err != nil || !strings.Contains(string(body), "hello") {
		t.Errorf("the request under way: %q, %v", body, err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// What lasts longer than the limit is cut off.
func TestDrainedServerEnds(t *testing.T) {
	wait := make(chan struct{})
	defer close(wait)
	s, addr := newDrained(t, wait)
	busy := keep(t, addr)
	under, err := busy.get("/wait")
	gatewaytest.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := io.ReadAll(under.Body); err == nil {
		t.Error("the request under way was not cut off")
	}
}

// lateListener returns the one connection that it had accepted before Close, and only then.
type lateListener struct {
	net.Listener
	conn   chan net.Conn
	closed chan struct{}
}

func (l lateListener) Accept() (net.Conn, error) {
	<-l.closed
	if c, ok := <-l.conn; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l lateListener) Close() error {
	close(l.closed)
	return l.Listener.Close()
}

// Shutdown serves what was accepted, but not yet known to net/http.
func TestDrainedServesWhatWasAccepted(t *testing.T) {
	plain, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	c := keep(t, plain.Addr().String())
	accepted, err := plain.Accept()
	gatewaytest.Must(t, err)
	late := lateListener{plain, make(chan net.Conn, 1), make(chan struct{})}
	late.conn <- accepted
	close(late.conn)
	s := gateway.NewDrainedServer(&http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello") // the client reads it
	})})
	served := make(chan error, 1)
	go func() { served <- s.Serve(late) }()
	answered := make(chan error, 1)
	go func() {
		_, err := c.get("/")
		answered <- err
	}()
	gatewaytest.WaitFor(t, "Serve has begun", func() bool { return s.Serving() == 1 })
	gatewaytest.Must(t, s.Shutdown(t.Context()))
	if err := errors.Join(<-served, <-answered); err != nil {
		t.Error(err)
	}
}
