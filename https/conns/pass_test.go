package conns

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// handed is what a Pass was given.
type handed struct {
	conn *Conn
	read []byte
}

// newPassingServer passes connections to own.example on.
func newPassingServer(t *testing.T) (*server, chan handed) {
	t.Helper()
	passed := make(chan handed, 1)
	s := newServer(t, func(config *tls.Config) {
		config.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			if info.ServerName == "own.example" {
				return nil, &Pass{To: func(c *Conn, read []byte) { passed <- handed{c, read} }}
			}
			return nil, nil //nolint:nilnil // crypto/tls: use the config there is
		}
	})
	return s, passed
}

// sendHello sends a ClientHello on c.
func sendHello(t *testing.T, c net.Conn) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	client := tls.Client(theirs, &tls.Config{ServerName: "own.example", MinVersion: tls.VersionTLS12})
	go func() { _ = client.HandshakeContext(t.Context()) }() // it fails when the pipe is closed
	hello := make([]byte, 16<<10)
	n, err := ours.Read(hello)
	gatewaytest.Must(t, err)
	_, err = c.Write(hello[:n])
	gatewaytest.Must(t, err)
	return hello[:n]
}

// A connection that is passed on has left the handshake and HTTP, but not its place.
func TestPass(t *testing.T) {
	s, passed := newPassingServer(t)
	client := s.dial()
	sent := sendHello(t, client)
	got := <-passed
	if !bytes.Equal(got.read, sent) {
		t.Errorf("sent %x, passed %x", sent, got.read)
	}
	s.guard.Wait(t.Context(), 1<<62) // returns at once
	s.guard.mu.Lock()
	if s.guard.shaking.taken != 0 || s.guard.all.taken != 1 {
		t.Errorf("%d places of handshakes and %d of connections are taken", s.guard.shaking.taken, s.guard.all.taken)
	}
	s.guard.mu.Unlock()
	// Bytes pass both ways, and nothing was sent before: no alert.
	_, err := io.WriteString(got.conn, "answer")
	gatewaytest.Must(t, err)
	answer := make([]byte, 6)
	if _, err := io.ReadFull(client, answer); err != nil || string(answer) != "answer" {
		t.Errorf("the client reads %q, %v", answer, err)
	}
	_ = got.conn.Close() // what follows shows it
	if _, err := client.Read(answer); !errors.Is(err, io.EOF) {
		t.Errorf("the client reads %v", err)
	}
	s.guard.mu.Lock()
	defer s.guard.mu.Unlock()
	if s.guard.all.taken != 0 || len(s.guard.open) != 0 {
		t.Errorf("%d places are taken after the end", s.guard.all.taken)
	}
}

// No client is too slow for what is not HTTP.
func TestPassedMayBeSlow(t *testing.T) {
	s, passed := newPassingServer(t)
	sendHello(t, s.dial()) // and it never reads
	got := <-passed
	written := make(chan error, 1)
	go func() {
		_, err := got.conn.Write(make([]byte, 64<<20))
		written <- err
	}()
	gatewaytest.WaitFor(t, "a write without room", func() bool { return got.conn.out.since.Load() != 0 })
	s.stays(time.Hour)
	_ = got.conn.Close() // it ends the write
	if err := <-written; err == nil {
		t.Error("64 MiB were written to a client that does not read")
	}
}

// Names of the server are served, and a client that sends no ClientHello is cut.
func TestPassLeavesOthers(t *testing.T) {
	s, _ := newPassingServer(t)
	res, err := s.do(s.http2(), "/ignore", http.NoBody)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, res.Body.Close())
	gatewaytest.Must(t, <-s.ended)
	s.idle()
	client := s.dial()
	_, err = client.Write([]byte{22, 3, 1}) // the start of a record
	gatewaytest.Must(t, err)
	s.waiting(handshakeIn)
	s.sweepUntil(handshakeWait, Handshake)
}

// A ClientHello in many small records is no way to make the server keep more.
func TestHelloIsLimited(t *testing.T) {
	h := &hello{}
	gatewaytest.Must(t, h.keep(make([]byte, maxHelloBytes)))
	if err := h.keep([]byte{1}); err == nil {
		t.Error("one byte more was kept")
	}
}
