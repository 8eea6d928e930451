package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"lodge/gateway"
	"lodge/gateway/relay"
)

// DialTap is the default Config.Dial.
func DialTap(ctx context.Context, vm gateway.VM, port uint16) (net.Conn, error) {
	return relay.Dial(ctx, "tcp4", vm.Tap(), netip.AddrPortFrom(vm.Addr, port))
}

// Errors of a VM that does not answer.
var (
	ErrRefused = errors.New("the VM refuses the connection") // nothing listens
	// it starts, stops, hangs, or drops the packets
	ErrNoRoute = errors.New("the VM does not answer")
)

// dialError makes err one of ErrRefused and ErrNoRoute, with err as its cause.
func dialError(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return fmt.Errorf("%w: %w", ErrNoRoute, err)
}
