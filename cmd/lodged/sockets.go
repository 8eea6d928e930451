package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"lodge/gateway"
)

// The listening sockets outlive the daemon, so that a restart, an upgrade or a crash refuses no
// connection: the kernel holds newcomers in the backlog. Under systemd they are in the unit's
// descriptor store (FileDescriptorStoreMax=). Elsewhere SIGUSR2 passes them on (upgrade.go).

// socketsVar has the sockets that replace passed on, each as name=descriptor. sd_listen_fds(3) does
// not fit: it counts from descriptor 3, which the Go runtime may use for epoll(7).
const socketsVar = "LODGED_SOCKETS"

// passedSockets are the sockets of the daemon before this one, by the names of their services: each a
// net.Listener or a net.PacketConn.
type passedSockets map[string][]io.Closer

// takePassed returns the sockets that systemd or replace has passed to this process.
func takePassed() (passedSockets, error) {
	files := activation.Files(true)
	own := strings.Fields(os.Getenv(socketsVar))
	_ = os.Unsetenv(socketsVar) // it fails for bad names only
	for _, one := range own {
		name, fd, _ := strings.Cut(one, "=")
		n, err := strconv.ParseUint(fd, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("take sockets: %s is %q", socketsVar, one)
		}
		files = append(files, os.NewFile(uintptr(n), name))
	}
	passed := passedSockets{}
	for _, file := range files {
		socket, err := socketOf(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("take socket %s: %w", file.Name(), err)
		}
		passed[file.Name()] = append(passed[file.Name()], socket)
	}
	return passed, passed.check()
}

// socketOf returns a net.Listener or a net.PacketConn for a duplicate of file.
func socketOf(file *os.File) (io.Closer, error) {
	if l, err := net.FileListener(file); err == nil {
		return l, nil
	}
	return net.FilePacketConn(file)
}

// check returns an error for a socket with a name that no service has, and removes it from systemd's
// store: a newer daemon may have put it there.
func (p passedSockets) check() error {
	for name := range p {
		if !slices.Contains([]string{"https", "http", "smtp", "control", "s3", "ssh", "dns"}, name) {
			passedSockets{name: p[name]}.remove()
			p.close()
			return gateway.Invalid("systemd passed a socket named %q", name).
				WithHint("Set FileDescriptorName= of the socket unit to https, http or smtp.")
		}
	}
	return nil
}

// take removes and returns a socket that use accepts. It is false when there is none.
func take[T any](p passedSockets, name string, use func(io.Closer) (T, bool)) (none T, ok bool) {
	for i, s := range p[name] {
		if used, ok := use(s); ok {
			p[name] = slices.Delete(p[name], i, i+1)
			return used, true
		}
	}
	return none, false
}

// tcpAt and udpAt accept the socket at an address.
func tcpAt(at netip.AddrPort) func(io.Closer) (net.Listener, bool) {
	return func(s io.Closer) (net.Listener, bool) {
		l, ok := s.(net.Listener)
		return l, ok && l.Addr().String() == at.String()
	}
}

func udpAt(at netip.AddrPort) func(io.Closer) (net.PacketConn, bool) {
	return func(s io.Closer) (net.PacketConn, bool) {
		c, ok := s.(net.PacketConn)
		return c, ok && c.LocalAddr().String() == at.String()
	}
}

// close closes what was not taken. systemd keeps its own, for the next start.
func (p passedSockets) close() {
	for _, sockets := range p {
		for _, s := range sockets {
			_ = s.Close() // nothing was accepted
		}
	}
}

// remove closes what was not taken, in systemd's store too: the configuration no longer has the
// addresses. That removes all sockets of the name, so heldSockets.store comes afterwards.
func (p passedSockets) remove() {
	p.close()
	for name, sockets := range p {
		if len(sockets) > 0 {
			notify("FDSTOREREMOVE=1\nFDNAME=" + name)
		}
	}
}

// heldSocket is a duplicate of a socket. It stays open when the service closes its own.
type heldSocket struct {
	name string
	fd   int
}

type heldSockets []heldSocket

// hold duplicates the sockets of all services.
func hold(sockets map[string][]io.Closer) (held heldSockets, err error) {
	for name, all := range sockets {
		for _, s := range all {
			fd, err := duplicate(s)
			if err != nil {
				held.close()
				return nil, fmt.Errorf("duplicate socket %s: %w", name, err)
			}
			held = append(held, heldSocket{name, fd})
		}
	}
	return held, nil
}

// duplicate does not use File, whose Fd makes the shared socket blocking.
func duplicate(s io.Closer) (fd int, err error) {
	socket, ok := s.(syscall.Conn)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var dupErr error
	err = raw.Control(func(own uintptr) { fd, dupErr = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, dupErr)
}

func (h heldSockets) close() {
	for _, s := range h {
		_ = unix.Close(s.fd) // the service has its own
	}
}

// store puts the sockets into systemd's store, which keeps one of each (sd_notify(3)). Without
// systemd it does nothing.
func (h heldSockets) store() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("store sockets: %w", err)
	}
	var errs []error
	for _, s := range h {
		// A socket without events is no reason to remove it.
		state := []byte("FDSTORE=1\nFDPOLL=0\nFDNAME=" + s.name)
		errs = append(errs, unix.Sendmsg(socket, state, unix.UnixRights(s.fd), &unix.SockaddrUnix{Name: path}, 0))
	}
	if err := errors.Join(append(errs, unix.Close(socket))...); err != nil {
		return fmt.Errorf("store sockets: %w", err)
	}
	return nil
}

// notify passes a state to systemd (sd_notify(3)). Without systemd it does nothing.
func notify(state string) {
	_, _ = daemon.SdNotify(false, state) // a missing listener is no reason to stop
}
