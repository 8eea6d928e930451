package conns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestSilentHandshakeIsCut(t *testing.T) {
	for _, sent := range []string{"", "\x16\x03\x01\x02\x00\x01"} { // nothing, a part of a ClientHello
		s := newServer(t)
		c := s.dial()
		_, _ = io.WriteString(c, sent) // a new connection has room
		s.waiting(handshakeIn)
		s.stays(2 * time.Second)
		s.sweepUntil(handshakeWait+time.Second, Handshake)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection is still open")
		}
	}
}

// A VM computes its part of a handshake slowly when the host is busy; it has places of its own.
func TestSlowHandshakeOfAVM(t *testing.T) {
	for _, row := range []struct {
		peer gateway.Peer
		wait time.Duration
	}{{gateway.Peer{}, handshakeWait}, {gateway.Peer{VM: gateway.ID{1}}, vmWait}} {
		c := &Conn{peer: row.peer}
		c.shaking.Store(true)
		c.in.since.Store(1)
		if early, late := c.stalled(int64(row.wait-time.Second)), c.stalled(int64(row.wait+time.Second)); early != "" || late != Handshake {
			t.Errorf("%v: %q, then %q", row.peer, early, late)
		}
	}
}

func TestSlowBodyIsCut(t *testing.T) {
	for _, path := range []string{"/read", "/ignore"} { // net/http reads what a handler leaves
		s := newServer(t)
		c := s.http1("POST " + path + " HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1000\r\n\r\nslow")
		s.waiting(in)
		s.stays(progressWait - 10*time.Second)
		s.sweepUntil(progressWait+time.Second, Body)
		if err := <-s.ended; path == "/read" && err == nil {
			t.Error("the handler read a complete body")
		}
		if _, err := io.Copy(io.Discard, c); err == nil && path == "/read" {
			t.Error("the connection was not reset")
		}
	}
}

// A body that arrives, however long it takes, is not cut.
func TestBodyThatArrivesIsKept(t *testing.T) {
	s := newServer(t)
	const parts = 8
	c := s.http1(fmt.Sprintf("POST /read HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n\r\n", parts*progressBytes))
	for range parts {
		s.waiting(in)
		s.stays(progressWait - 10*time.Second)
		if _, err := c.Write(make([]byte, progressBytes)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", res, err)
	}
	s.idle()
	s.stays(time.Hour) // between two requests, which is net/http's to end
}

func TestSlowReaderIsCut(t *testing.T) {
	s := newServer(t)
	s.http1("GET /write HTTP/1.1\r\nHost: example.com\r\n\r\n")
	s.blocked(out)
	s.stays(progressWait - 10*time.Second)
	s.sweepUntil(progressWait+time.Second, Answer)
	if err := <-s.ended; err == nil {
		t.Error("the handler wrote all of it")
	}
}

func TestIdleStreamsLiveOn(t *testing.T) {
	s := newServer(t)
	c := s.http1("GET /hijack HTTP/1.1\r\nHost: example.com\r\n\r\n")
	s.http1("GET /events HTTP/1.1\r\nHost: example.com\r\n\r\n")
	res, err := s.do(s.http2(), "/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for range 3 {
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		s.idle()
		s.stays(time.Hour)
	}
	if s.guard.Count() != 3 {
		t.Errorf("%d of 3 connections are open", s.guard.Count())
	}
}

// Over HTTP/2 one request ends; others on its connection go on.
func TestSlowRequestOfHTTP2IsCut(t *testing.T) {
	for _, tt := range []struct {
		path   string
		where  func(*Conn) *flow
		want   Reason
		header []string
	}{
		{"/read", streamIn, Body, nil},
		{"/write", streamOut, Answer, nil},
		{"/read", streamIn, Body, []string{"Content-Type", "application/grpc-web+proto"}}, // for servers of HTTP/1.1
	} {
		s := newServer(t)
		client := s.http2()
		never, send := io.Pipe()
		go func() {
			res, err := s.do(client, tt.path, map[bool]io.Reader{true: never}[tt.want == Body], tt.header...)
			if err == nil {
				t.Cleanup(func() { _ = res.Body.Close() }) // never read
			}
		}()
		if tt.want == Answer {
			s.blocked(tt.where)
		} else {
			s.waiting(tt.where)
		}
		s.stays(progressWait - 10*time.Second)
		s.sweepUntil(progressWait+time.Second, tt.want)
		if err := <-s.ended; err == nil || tt.want == Body && !errors.Is(err, ErrSlow) {
			t.Errorf("%s: the handler got %v", tt.path, err)
		}
		_ = send.Close() // never fails
		if res, err := s.do(client, "/ignore", nil); err != nil {
			t.Errorf("%s: the next request: %v", tt.path, err)
		} else {
			_ = res.Body.Close() // it has none
		}
		if n := s.guard.Count(); n != 1 {
			t.Errorf("%s: %d connections", tt.path, n)
		}
	}
}

// A stream of messages may be quiet.
func TestQuietGRPCLivesOn(t *testing.T) {
	s := newServer(t)
	body, send := io.Pipe()
	done := make(chan error, 1)
	go func() {
		res, err := s.do(s.http2(), "/read", body, "Content-Type", "application/grpc+proto")
		if err == nil {
			err = res.Body.Close()
		}
		done <- err
	}()
	if _, err := send.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	gatewaytest.WaitFor(t, "the request", func() bool {
		s.guard.mu.Lock()
		defer s.guard.mu.Unlock()
		for c := range s.guard.open {
			return streamIn(c) != nil
		}
		return false
	})
	s.idle()
	s.stays(time.Hour)
	_ = send.Close() // never fails
	if err := errors.Join(<-s.ended, <-done); err != nil {
		t.Error(err)
	}
}

// Plain HTTP on the TLS port still gets net/http's explanation.
func TestPlainRequestIsExplained(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n") // the answer shows whether it arrived
	if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), "HTTPS server") {
		t.Errorf("%q, %v", got, err)
	}
}
