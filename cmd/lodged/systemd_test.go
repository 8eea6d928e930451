package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway"
)

// TestPassedSockets starts itself as systemd would, with a listening socket as descriptor 3.
func TestPassedSockets(t *testing.T) {
	if os.Getenv("LODGED_TEST_CHILD") != "" {
		passedChild(t)
		return
	}
	for name, want := range map[string]string{"https": "serves", "ftp": "Invalid"} {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's own
		if err != nil {
			t.Fatal(err)
		}
		file, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		//nolint:gosec // the test's own binary
		child := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestPassedSockets$' -test.v`, os.Args[0])
		child.Env = append(os.Environ(), "LODGED_TEST_CHILD="+l.Addr().String(), "LISTEN_FDS=1", "LISTEN_FDNAMES="+name)
		child.ExtraFiles = []*os.File{file}
		out, err := child.CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func passedChild(t *testing.T) {
	t.Helper()
	passed, err := passedSockets()
	if gateway.KindOf(err) == gateway.KindInvalid && err != nil {
		t.Log("Invalid")
		return
	}
	cfg := defaultConfig()
	cfg.RunDir, cfg.HTTPPort, cfg.SMTPPort = t.TempDir(), 0, 0
	o, err := openHostListeners(t.Context(), cfg, passed)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.https) == 1 && o.https[0].Addr().String() == os.Getenv("LODGED_TEST_CHILD") {
		t.Log("serves")
	}
	if err := o.close(); err != nil {
		t.Error(err)
	}
}

// TestNotify reads the socket as systemd does.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify.sock")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	notify("READY=1")
	buf := make([]byte, 64)
	if n, err := socket.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
}
