package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"

	"lodge/gateway"
	"lodge/gateway/control"
	"lodge/gateway/sockets"
)

// listenTCP uses the inherited socket of a name, or listens on one address. The error for a taken port
// names the process that has it.
func listenTCP(ctx context.Context, kept *sockets.Set, name string, at netip.AddrPort) (net.Listener, error) {
	l, err := sockets.Open(kept, name, sockets.At{Network: "tcp", Addr: at.String()}, func() (net.Listener, error) {
		return new(net.ListenConfig).Listen(ctx, "tcp", at.String())
	})
	if err != nil {
		return nil, explainListen(ctx, "tcp", at, err)
	}
	return l, nil
}

// listenUDP is listenTCP for UDP.
func listenUDP(ctx context.Context, kept *sockets.Set, name string, at netip.AddrPort) (net.PacketConn, error) {
	c, err := sockets.Open(kept, name, sockets.At{Network: "udp", Addr: at.String()}, func() (net.PacketConn, error) {
		return new(net.ListenConfig).ListenPacket(ctx, "udp", at.String())
	})
	if err != nil {
		return nil, explainListen(ctx, "udp", at, err)
	}
	return c, nil
}

// openUnix uses the inherited socket of a name, or opens the one at path.
func openUnix(ctx context.Context, kept *sockets.Set, name, path string) (net.Listener, error) {
	open := func() (net.Listener, error) {
		at := sockets.At{Network: "unix", Addr: control.BoundName(path)}
		return sockets.Open(kept, name, at, func() (net.Listener, error) { return control.Listen(ctx, path) })
	}
	l, err := open()
	if _, inherited := l.(*net.UnixListener); err != nil || !inherited {
		return l, err
	}
	if adopted, ok := control.Adopt(l, path); ok {
		return adopted, nil
	}
	_ = l.Close() // no path leads to it
	kept.Remove(name)
	return open()
}

// explainListen makes an error of listen(2) or bind(2) one for a person. network is tcp or udp.
func explainListen(ctx context.Context, network string, at netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return gateway.Errorf(gateway.KindConflict, "port %d of %s is taken by %s", at.Port(), at.Addr(), portHolder(ctx, network, at.Port())).
			Because(err).WithHint("Stop that process, or set another port in %s.", defaultConfigFile)
	case errors.Is(err, syscall.EACCES):
		return gateway.Errorf(gateway.KindDenied, "port %d may not be opened", at.Port()).Because(err).WithHint("Run lodged as root.")
	}
	return fmt.Errorf("listen on %s: %w", at, err)
}

// portHolder returns the process that has a port, by ss(8), for an error text.
func portHolder(ctx context.Context, network string, port uint16) string {
	out, err := exec.CommandContext(ctx, "ss", "-Hlnp", "--"+network, "sport", "=", ":"+strconv.Itoa(int(port))).Output() //nolint:gosec // a number
	found := regexp.MustCompile(`\("([^"]+)",pid=(\d+)`).FindSubmatch(out)
	if err != nil || found == nil {
		return "another process"
	}
	return fmt.Sprintf("%s (process %s)", found[1], found[2])
}
