package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"lodge/gateway"
	"lodge/gateway/api"
)

// Listen makes a unix socket at path that only root can use: mode 0600, and each caller's uid is looked at as well. The
// directory is made (0700) when it is missing, and the socket that a killed daemon has left is replaced. It fails with
// KindTaken when somebody answers there.
func Listen(ctx context.Context, path string) (net.Listener, error) { return listenFor(ctx, path, 0) }

func listenFor(ctx context.Context, path string, uid uint32) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make runtime directory: %w", err)
	}
	var dialer net.Dialer
	if c, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close() // it was opened only to see whether somebody is there
		return nil, gateway.Errorf(gateway.KindTaken, "another lodged answers on %s", path).
			WithHint("Stop that one first: systemctl stop lodged, or make down.")
	}
	// Bound under another name first, so that path never is a socket with a wider mode, nor one that nobody answers.
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // it would unlink a name that a newer daemon may have taken over
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("place socket %s: %w", path, err), l.Close())
	}
	return &peerListener{UnixListener: l, path: path, uid: uid}, nil
}

// peerListener hangs up on callers of another uid.
type peerListener struct {
	*net.UnixListener
	path string // where it is now
	uid  uint32
}

// Addr implements net.Listener.
func (l *peerListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Accept implements net.Listener.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && uid == l.uid {
			return &peerConn{c, api.Owner()}, nil
		}
		_ = c.Close() // not root: not a word to it
	}
}

// peerConn is a connection that carries who is at its other end.
type peerConn struct {
	*net.UnixConn
	caller api.Caller
}

// callerOf is who is at the other end of c: nobody, unless a peerListener accepted it.
func callerOf(c net.Conn) api.Caller {
	if p, ok := c.(*peerConn); ok {
		return p.caller
	}
	return api.Caller{}
}

// peerUID asks the kernel who is at the other end (SO_PEERCRED, unix(7)).
func peerUID(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
