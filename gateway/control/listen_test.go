package control

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// Nobody but the uid that the socket is for gets a word in. Whether the mode of the file keeps others out as well, no test
// that runs as root can see.
func TestOthersAreHungUpOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenFor(t.Context(), path, uint32(os.Getuid())+1)
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted: %v", err)
	}
}
