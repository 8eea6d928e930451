package gateway

import (
	"net"
	"net/netip"
)

// A socket on a tap also receives what processes of the host itself, root or not, send to
// LinkLocal. For such packets the kernel compares the interface that has the address, not the one
// on which they came in. Their source is never the guest's address, so listeners on taps check the
// source too.

// ownStreams accepts connections from addr alone.
type ownStreams struct {
	net.Listener
	addr netip.Addr
}

// Accept implements net.Listener.
func (l ownStreams) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || sourceOf(c.RemoteAddr()) == l.addr {
			return c, err //nolint:wrapcheck // the caller looks for net.ErrClosed
		}
		_ = c.Close() // not the guest: close without replying
	}
}

// ownPackets reads packets from addr alone.
type ownPackets struct {
	net.PacketConn
	addr netip.Addr
}

// ReadFrom implements net.PacketConn.
func (p ownPackets) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := p.PacketConn.ReadFrom(b)
		if err != nil || sourceOf(from) == p.addr {
			return n, from, err //nolint:wrapcheck // the caller looks for net.ErrClosed
		}
	}
}

// sourceOf returns the IP address in addr; the zero Addr, which no guest has, when there is none.
func sourceOf(addr net.Addr) netip.Addr {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	default:
		return netip.Addr{}
	}
}
