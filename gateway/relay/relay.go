// Package relay connects to guests and passes connections on unread: raw ports and TLS that a VM
// ends itself.
//
// It never dials a guest by any way but its tap, and never decides who may connect.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// dialTimeout is how long a VM may take to answer a SYN on its own tap.
const dialTimeout = 3 * time.Second

// Dial connects to a guest by "tcp4" or "udp4". The socket is bound to the tap: the address of a VM
// without a tap never leads to another network.
func Dial(ctx context.Context, network, tap string, to netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, Control: func(_, _ string, raw syscall.RawConn) error {
		var bound error
		err := raw.Control(func(fd uintptr) {
			bound = syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, tap) //nolint:gosec // a descriptor fits
		})
		return errors.Join(bound, err)
	}}
	c, err := dialer.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, fmt.Errorf("dial VM: %w", err)
	}
	return c, nil
}

// Join copies between two connections until both directions have ended, and closes both. The end of
// one direction is passed on as a half-close (RFC 9293 §3.6). After an error, or when ctx ends, both
// are reset, so that a stream that was cut off does not look complete. Between two *net.TCPConn the
// kernel copies, by splice(2).
func Join(ctx context.Context, a, b net.Conn) {
	reset := sync.OnceFunc(func() {
		Reset(a)
		Reset(b)
	})
	stop := context.AfterFunc(ctx, reset)
	pass := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if err == nil {
			err = closeWrite(to)
		}
		if err != nil {
			reset()
		}
	}
	var other sync.WaitGroup
	other.Go(func() { pass(a, b) })
	pass(b, a)
	other.Wait()
	if stop() {
		_, _ = a.Close(), b.Close() // both directions have ended
	} else {
		reset() // returns once both are closed
	}
}

// Reset closes c by a TCP reset where it is TCP: its peer sees that the stream was cut off.
func Reset(c net.Conn) {
	for range 4 { // layers
		if under, ok := c.(interface{ NetConn() net.Conn }); ok {
			defer c.Close() //nolint:errcheck // it gives back what the layer holds
			c = under.NetConn()
		}
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // fails only on a closed one
	}
	_ = c.Close() // as above
}

// closeWrite ends one direction. A connection that has no halves is closed.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
