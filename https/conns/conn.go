package conns

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"lodge/gateway"
)

// Conn is a guarded connection, below TLS.
type Conn struct {
	net.Conn
	guard *Guard
	peer  gateway.Peer
	many  bool // its peer stands for many clients

	last     atomic.Int64 // when it was accepted, began or ended a request, or made progress
	requests atomic.Int32 // under way
	shaking  atomic.Bool  // the TLS handshake is under way
	owesBody atomic.Bool  // HTTP/1: the body of the request is incomplete
	passed   atomic.Bool  // by Pass: it is not HTTP, and may stay for ever
	in, out  flow
	hello    *hello // during the handshake; nil once the ClientHello is accepted

	served bool // guarded by guard.mu

	mu      sync.Mutex
	streams map[*stream]struct{} // requests of HTTP/2 or 3
}

// of returns the Conn beneath c; nil if there is none.
func of(c net.Conn) *Conn {
	for c != nil {
		if guarded, ok := c.(*Conn); ok {
			return guarded
		}
		layer, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = layer.NetConn()
	}
	return nil
}

// Many reports whether the peer stands for many clients: it is on loopback or a proxy, or has no
// address.
func (c *Conn) Many() bool { return c.many }

// NetConn returns the connection beneath.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.during(c, p, c.Conn.Read)
	if c.hello != nil {
		if tooLarge := c.hello.keep(p[:n]); tooLarge != nil {
			return n, tooLarge
		}
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if c.hello != nil && c.hello.passed {
		return 0, net.ErrClosed // the alert about Pass
	}
	return c.out.during(c, p, c.Conn.Write)
}

// CloseWrite closes the sending half, if the connection beneath supports it. net/http needs it:
// without it a client that is still sending reads a reset instead of the answer.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close closes the connection and gives its places back.
func (c *Conn) Close() error {
	c.guard.remove(c)
	return c.Conn.Close()
}

// cut closes the connection at once: what the client has not read is dropped, so that the kernel
// keeps nothing for it.
func (c *Conn) cut(why Reason) {
	c.guard.onCut(why)
	for beneath := c.Conn; beneath != nil; {
		switch layer := beneath.(type) {
		case *net.TCPConn:
			_ = layer.SetLinger(0) // it fails only on a closed connection
			beneath = nil
		case interface{ NetConn() net.Conn }:
			beneath = layer.NetConn()
		default:
			beneath = nil
		}
	}
	_ = c.Close() // its server sees the error
}

// idler reports whether c goes before d: one without a request goes first, then the one whose last
// progress is longer ago.
func (c *Conn) idler(d *Conn) bool {
	if a, b := c.requests.Load() > 0, d.requests.Load() > 0; a != b {
		return b
	}
	return c.last.Load() < d.last.Load()
}

// stalled returns why the connection must be cut at now, or "".
func (c *Conn) stalled(now int64) Reason {
	wait := handshakeWait
	if c.peer.VM != (gateway.ID{}) {
		wait = vmWait
	}
	switch {
	case c.shaking.Load() && (c.in.stalled(now, wait) || c.out.stalled(now, wait)):
		return Handshake
	case c.owesBody.Load() && c.in.stalled(now, progressWait):
		return Body
	case !c.passed.Load() && c.out.stalled(now, progressWait):
		return Answer
	}
	return ""
}
