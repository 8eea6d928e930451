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
	release func() // gives back what was counted; nil for one that NewConn made
}

// NewConn returns a connection with vm at its other end, for tests. Only TapListeners may make one elsewhere.
func NewConn(c net.Conn, vm Identity) *Conn { return &Conn{Conn: c, vm: vm} }

// Identity is who is at the other end.
func (c *Conn) Identity() Identity { return c.vm }

// NetConn gives the connection beneath, as tls.Conn does.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *Conn) Close() error {
	if c.release != nil {
		c.release()
	}
	return c.Conn.Close()
}

// CloseWrite ends the sending half, where the connection beneath can. net/http needs it so that a client which is still
// sending reads the answer instead of a reset.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// ReadFrom implements io.ReaderFrom, so that files still leave by sendfile(2).
func (c *Conn) ReadFrom(r io.Reader) (int64, error) { return io.Copy(c.Conn, r) }

// IdentityOf says which VM is at the other end of c, looking through TLS. The zero VM means that c did not come in on a tap.
// It allocates nothing and asks nobody.
func IdentityOf(c net.Conn) Identity {
	for range 4 { // layers: TLS over our Conn over a server's own wrapper is the deepest there is
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

// ConnContext is for http.Server.ConnContext: requests on c get its VM in their context.
func ConnContext(ctx context.Context, c net.Conn) context.Context { return WithVM(ctx, IdentityOf(c)) }

// WithVM returns a context that carries vm. It exists for net/http alone, which has no other way.
func WithVM(ctx context.Context, vm Identity) context.Context {
	return context.WithValue(ctx, vmKey{}, vm)
}

// VMFrom reads what WithVM has set; the zero VM otherwise.
func VMFrom(ctx context.Context) Identity {
	vm, _ := ctx.Value(vmKey{}).(Identity)
	return vm
}
