package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"lodge/gateway"
)

// Group is the group whose members may use the sockets, where the host has one of that name.
const Group = "lodge"

// noGroup stands for a group that does not exist.
const noGroup = -1

// Listen makes a unix socket at path for root (mode 0600) and, where Group exists, its members (0660); the credentials of
// each caller are checked as well. A missing directory is made (0711), and the socket of a killed daemon is replaced.
// It fails with KindTaken when another process answers there.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	gid, err := groupID(Group)
	if err != nil {
		return nil, err
	}
	return listenFor(ctx, path, gid)
}

// BoundName is the name that a socket at path is bound to; Listen renames it to path.
func BoundName(path string) string { return path + ".new" }

// Adopt is Listen for the socket that an earlier daemon made at path and passed on. It is false for any other listener,
// and when nothing is at path any more.
func Adopt(l net.Listener, path string) (net.Listener, bool) {
	unix, ok := l.(*net.UnixListener)
	if !ok || unix.Addr().String() != BoundName(path) {
		return nil, false
	}
	gid, err := groupID(Group)
	if err != nil || permit(path, gid) != nil {
		return nil, false
	}
	unix.SetUnlinkOnClose(false) // as in Listen
	return &peerListener{UnixListener: unix, path: path, gid: gid}, true
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if errors.As(err, new(user.UnknownGroupError)) {
		return noGroup, nil
	}
	if err != nil {
		return noGroup, fmt.Errorf("look up group %s: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

func listenFor(ctx context.Context, path string, gid int) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil { //nolint:gosec // the group's members pass through
		return nil, fmt.Errorf("make runtime directory: %w", err)
	}
	var dialer net.Dialer
	if c, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = c.Close() // it was opened only to see whether another process listens
		return nil, gateway.Errorf(gateway.KindTaken, "another lodged answers on %s", path).
			WithHint("Stop that one first: systemctl stop lodged, or make down.")
	}
	// Bound under another name first, so that path never is a socket with a wider mode, nor one that is not answered.
	fresh := BoundName(path)
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // a newer daemon may have taken the name over
	if err := errors.Join(permit(fresh, gid), os.Rename(fresh, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("place socket %s: %w", path, err), l.Close())
	}
	return &peerListener{UnixListener: l, path: path, gid: gid}, nil
}

// permit gives a file to root and to a group.
func permit(path string, gid int) error {
	if gid == noGroup {
		return os.Chmod(path, 0o600)
	}
	return errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)) //nolint:gosec // the group is meant
}
