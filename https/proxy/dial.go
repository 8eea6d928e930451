package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"lodge/gateway"
)

// dialTimeout is how long a VM may take to answer a SYN on its own tap.
const dialTimeout = 3 * time.Second

// DialTap is the default Config.Dial. The socket is bound to the VM's tap: the address of a VM
// without a tap never leads to another network.
func DialTap(ctx context.Context, vm gateway.VM, port uint16) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlErr := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptString(int(fd), syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, vm.Tap()) //nolint:gosec // a descriptor fits
		})
		return errors.Join(err, controlErr)
	}}
	c, err := dialer.DialContext(ctx, "tcp4", net.JoinHostPort(vm.Addr.String(), strconv.Itoa(int(port))))
	if err != nil {
		return nil, fmt.Errorf("dial VM: %w", err)
	}
	return c, nil
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
