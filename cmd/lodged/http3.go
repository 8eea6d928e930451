package main

import (
	"context"
	"net"
	"net/netip"

	"lodge/gateway/sockets"
)

// openHTTP3 opens the sockets of HTTP/3, if the configuration asks for it. They are not held for the next
// daemon: it could not continue the connections, and browsers use TCP meanwhile.
func openHTTP3(ctx context.Context, cfg Config, kept *sockets.Set) (all []net.PacketConn, err error) {
	if !cfg.HTTP3 {
		return nil, nil
	}
	for _, a := range cfg.Listen {
		at := netip.AddrPortFrom(a, uint16(cfg.HTTPSPort)) //nolint:gosec // Config.check has checked the range
		c, err := listenUDP(ctx, kept, "", at)
		if err != nil {
			for _, opened := range all {
				_ = opened.Close() // nothing was received
			}
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}
