package control

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"lodge/gateway/api"
)

// A daemon answers on the socket that the one before it passed on, and on no other.
func TestAdopt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodged.sock")
	first, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := first.(*peerListener).File()
	if err != nil {
		t.Fatal(err)
	}
	passed, err := net.FileListener(file)
	if err = errors.Join(err, file.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	if _, ok := Adopt(passed, path+"2"); ok {
		t.Error("adopted the socket of another path")
	}
	l, ok := Adopt(passed, path)
	if !ok {
		t.Fatal("not adopted")
	}
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil || callerOf(accepted) != api.Owner() {
		t.Errorf("accepted %v, %v", accepted, err)
	}
	if err := errors.Join(accepted.Close(), c.Close(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	if _, ok := Adopt(passed, path); ok {
		t.Error("adopted a socket that no path leads to")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
