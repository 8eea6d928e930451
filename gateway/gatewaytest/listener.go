package gatewaytest

import (
	"net"

	"lodge/gateway"
)

// Listener makes every connection that l accepts one of vm, as gateway.TapListeners does on a tap.
func Listener(l net.Listener, vm gateway.Identity) net.Listener { return listener{l, vm} }

type listener struct {
	net.Listener
	vm gateway.Identity
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // servers compare it with net.ErrClosed
	}
	return gateway.NewConn(c, l.vm), nil
}
