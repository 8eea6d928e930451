package control

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lodge/gateway/api"
)

// peerListener accepts connections of root and of the members of one group, and closes others without replying.
type peerListener struct {
	*net.UnixListener
	path string // where it is now
	gid  int    // of the group; noGroup where there is none
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

// Addr implements net.Listener.
func (l *peerListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Accept implements net.Listener.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if p, err := peerOf(c); err == nil && p.administers(l.gid) {
			return &peerConn{c, api.Owner()}, nil
		}
		_ = c.Close() // nothing was written
	}
}

// peer has the credentials of the process at the other end, as they were when it connected.
type peer struct {
	uid    uint32
	groups []uint32
}

// administers reports whether the process is root's, or has the group.
func (p peer) administers(gid int) bool {
	return p.uid == 0 || gid != noGroup && slices.Contains(p.groups, uint32(gid)) //nolint:gosec // a gid has 32 bits
}

// peerOf asks the kernel who is at the other end (SO_PEERCRED and SO_PEERGROUPS, unix(7)).
func peerOf(c *net.UnixConn) (p peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return p, err
	}
	var credErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr != nil { //nolint:gosec // descriptors are small
			return
		}
		if p.groups, credErr = peerGroups(fd); credErr != nil {
			return
		}
		p.uid, p.groups = cred.Uid, append(p.groups, cred.Gid)
	})
	return p, errors.Join(err, credErr)
}

// peerGroups reads SO_PEERGROUPS, for which x/sys has no function.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups)) * 4 //nolint:gosec // at most NGROUPS_MAX, 65536
		_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4], nil
		case unix.ERANGE: // size is now what is needed
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
