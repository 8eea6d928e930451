package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"lodge/gateway"
	"lodge/gateway/forward"
	"lodge/gateway/sockets"
)

// The listening sockets outlive the daemon, so that a restart, an upgrade or a crash refuses no
// connection (gateway/sockets). Under systemd they are in the unit's descriptor store
// (FileDescriptorStoreMax=). Elsewhere SIGUSR2 passes them on (upgrade.go).

// socketsVar has the sockets that replace passed on, each as name=descriptor, or name=descriptors with
// commas between. sd_listen_fds(3) does not fit: it counts from descriptor 3, which the Go runtime
// may use for epoll(7).
const socketsVar = "LODGED_SOCKETS"

// hostSockets are the names of the sockets that are not on taps, and not of forwarded ports.
var hostSockets = []string{"https", "http", "smtp", "imaps", "control", "s3", "ssh", "dns"} //nolint:gochecknoglobals // a constant table

// takePassed returns the sockets that systemd or replace has passed to this process.
func takePassed(log *slog.Logger) (*sockets.Set, error) {
	kept := sockets.New(systemdStore(log))
	bySystemd := activation.Files(true)
	own, err := ownFiles()
	if err != nil {
		return nil, err
	}
	for i, file := range append(bySystemd, own...) {
		if err := checkName(file.Name()); err != nil {
			notify("FDSTOREREMOVE=1\nFDNAME=" + file.Name()) // a newer daemon may have put it there
			kept.Close()
			return nil, err
		}
		socket, err := socketOf(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return nil, fmt.Errorf("take socket %s: %w", file.Name(), err)
		}
		if err := kept.Inherit(file.Name(), socket, i < len(bySystemd)); err != nil {
			return nil, fmt.Errorf("take socket %s: %w", file.Name(), err)
		}
	}
	return kept, nil
}

// ownFiles are those of socketsVar.
func ownFiles() (files []*os.File, err error) {
	all := strings.Fields(os.Getenv(socketsVar))
	_ = os.Unsetenv(socketsVar) // it fails for bad names only
	for _, one := range all {
		name, fds, _ := strings.Cut(one, "=")
		for fd := range strings.SplitSeq(fds, ",") {
			n, err := strconv.ParseUint(fd, 10, 31)
			if err != nil {
				return nil, fmt.Errorf("take sockets: %s is %q", socketsVar, one)
			}
			files = append(files, os.NewFile(uintptr(n), name))
		}
	}
	return files, nil
}

// socketOf returns a net.Listener or a net.PacketConn for a duplicate of file.
func socketOf(file *os.File) (io.Closer, error) {
	if l, err := net.FileListener(file); err == nil {
		return l, nil
	}
	return net.FilePacketConn(file)
}

// checkName returns an error for a name that no socket of Lodge has.
func checkName(name string) error {
	if slices.Contains(hostSockets, name) || strings.HasPrefix(name, sockets.Taps) || forward.OwnSocket(name) {
		return nil
	}
	return gateway.Invalid("systemd passed a socket named %q", name).
		WithHint("Set FileDescriptorName= of the socket unit to https, http, smtp or imaps.")
}

// systemdStore returns the store of this unit; nil without systemd.
func systemdStore(log *slog.Logger) sockets.Store {
	if path := os.Getenv("NOTIFY_SOCKET"); path != "" {
		return descriptorStore{path, log}
	}
	return nil
}

// descriptorStore is systemd's (sd_notify(3)).
type descriptorStore struct {
	path string // of systemd's socket
	log  *slog.Logger
}

// Add implements sockets.Store. systemd keeps one of each socket.
func (d descriptorStore) Add(name string, fd int) {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		state := []byte("FDSTORE=1\nFDPOLL=0\nFDNAME=" + name) // without events it must stay, too
		err = cmp.Or(unix.Sendmsg(socket, state, unix.UnixRights(fd), &unix.SockaddrUnix{Name: d.path}, 0), unix.Close(socket))
	}
	if err != nil { // the next daemon opens it anew
		d.log.Warn("socket was not stored", "err", err)
	}
}

// Remove implements sockets.Store.
func (d descriptorStore) Remove(name string) { notify("FDSTOREREMOVE=1\nFDNAME=" + name) }

// notify passes a state to systemd (sd_notify(3)). Without systemd it does nothing.
func notify(state string) {
	_, _ = daemon.SdNotify(false, state) // a missing listener is no reason to stop
}
