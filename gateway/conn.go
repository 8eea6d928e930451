package gateway

import (
	"context"
	"errors"
	"io"
	"net"
)

// Conn is a connection that carries the VM at its other end.
type Conn struct {
	net.Conn
	vm      Identity
	release func() // releases its place in the limits; nil for a Conn that NewConn made
}

// NewConn returns a connection with vm at its other end, for tests. Only TapListeners may make one
// elsewhere.
func NewConn(c net.Conn, vm Identity) *Conn { return &Conn{Conn: c, vm: vm} }

// Identity is the VM at the other end.
func (c *Conn) Identity() Identity { return c.vm }

// NetConn returns the connection beneath, as tls.Conn does.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *Conn) Close() error {
	if c.release != nil {
		c.release()
	}
	return c.Conn.Close()
}

// CloseWrite closes the sending half, if the connection beneath supports it. net/http needs it:
// without it a client that is still sending reads a reset instead of the answer.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// ReadFrom implements io.ReaderFrom, so that files are still sent by sendfile(2).
func (c *Conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// IdentityOf returns the VM at the other end of c, also through TLS. The zero Identity means that c
// did not come in on a tap. It makes no allocation and no system call.
func IdentityOf(c net.Conn) Identity {
	for range 4 { // more layers than any server stacks: TLS, a wrapper of its own, Conn
		switch t := c.(type) {
		case *Conn:
			return t.vm
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return Identity{}
		}
	}
	return Identity{}
}

type vmKey struct{}

// ConnContext is for http.Server.ConnContext: requests on c have its VM in their context.
func ConnContext(ctx context.Context, c net.Conn) context.Context { return WithVM(ctx, IdentityOf(c)) }

// WithVM returns a context that carries vm. It is for net/http alone, which passes values in no
// other way.
func WithVM(ctx context.Context, vm Identity) context.Context {
	return context.WithValue(ctx, vmKey{}, vm)
}

// VMFrom returns the VM that WithVM has set; the zero Identity otherwise.
func VMFrom(ctx context.Context) Identity {
	vm, _ := ctx.Value(vmKey{}).(Identity)
	return vm
}
