package gatewaytest

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"lodge/gateway/sockets"
)

// PassOn returns the Set of the daemon after that of s, which has ended: it inherits the sockets of s.
func PassOn(tb testing.TB, s *sockets.Set) *sockets.Set {
	tb.Helper()
	next := sockets.New(nil)
	tb.Cleanup(next.Close)
	s.Each(func(name string, fd int) {
		own, err := syscall.Dup(fd)
		Must(tb, err)
		Inherit(tb, next, name, os.NewFile(uintptr(own), name), false) //nolint:gosec // a descriptor
	})
	s.Close()
	return next
}

// Inherit adds the socket of a file to s, and closes the file.
func Inherit(tb testing.TB, s *sockets.Set, name string, file *os.File, stored bool) {
	tb.Helper()
	var socket io.Closer
	socket, err := net.FileListener(file)
	if err != nil {
		socket, err = net.FilePacketConn(file)
	}
	Must(tb, err)
	Must(tb, file.Close())
	Must(tb, s.Inherit(name, socket, stored))
}
