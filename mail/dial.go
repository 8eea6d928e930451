package mail

import (
	"context"
	"net"
	"net/netip"

	"lodge/gateway"
	"lodge/gateway/relay"
)

// dialGuest connects to a port of a guest over its tap.
func dialGuest(ctx context.Context, m gateway.VM, port uint16) (net.Conn, error) {
	return relay.Dial(ctx, "tcp4", m.Tap(), netip.AddrPortFrom(m.Addr, port))
}
