package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/sockets"
)

// TestPassedSockets starts itself as systemd would, with a listening socket as descriptor 3. A
// socket at an address that the configuration does not have is closed.
func TestPassedSockets(t *testing.T) {
	if os.Getenv("LODGED_TEST_CHILD") != "" {
		passedChild(t)
		return
	}
	for name, want := range map[string]string{"https": "serves", "http": "closed", "ftp": "Invalid"} {
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
		child.Env = append(os.Environ(), "LODGED_TEST_CHILD="+l.Addr().String(), "LISTEN_FDS=1", "LISTEN_FDNAMES="+name+":")
		child.ExtraFiles = []*os.File{file}
		var out bytes.Buffer
		child.Stdout, child.Stderr = &out, &out
		if err := errors.Join(child.Start(), l.Close(), file.Close()); err != nil { // only the child has the socket now
			t.Fatal(err)
		}
		if err := child.Wait(); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v: %s", name, err, out.String())
		}
	}
}

func passedChild(t *testing.T) {
	t.Helper()
	addr := netip.MustParseAddrPort(os.Getenv("LODGED_TEST_CHILD"))
	cfg := defaultConfig()
	cfg.RunDir, cfg.HTTPSPort, cfg.HTTPPort, cfg.SMTPPort = t.TempDir(), int(addr.Port()), 0, 0
	if strings.HasPrefix(os.Getenv("LISTEN_FDNAMES"), "http:") {
		cfg.HTTPSPort = 0
	}
	o, kept, err := openSockets(t.Context(), cfg, slog.Default())
	if err != nil && gateway.KindOf(err) == gateway.KindInvalid {
		t.Log("Invalid")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if o.https[0].Addr().String() == addr.String() {
		t.Log("serves")
	}
	if _, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr.String()); errors.Is(err, syscall.ECONNREFUSED) {
		t.Log("closed")
	}
	kept.Close()
	if err := o.close(); err != nil {
		t.Error(err)
	}
}

// TestNotify reads the socket as systemd does.
func TestNotify(t *testing.T) {
	socket := notifySocket(t)
	notify("READY=1")
	buf := make([]byte, 64)
	if n, err := socket.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
}

// A start that fails leaves the sockets in systemd's store to the next one.
func TestFailedStartKeepsStoredSockets(t *testing.T) {
	stored, taken := listenAny(t), listenAny(t)
	messages := notifySocket(t)
	passOn(t, "https", stored)
	passOn(t, "smtp", listenAny(t)) // the configuration no longer has its address
	cfg := defaultConfig()
	cfg.RunDir, cfg.HTTPSPort, cfg.HTTPPort, cfg.SMTPPort = t.TempDir(), portOf(stored), 0, portOf(taken)
	if _, _, err := openSockets(t.Context(), cfg, slog.Default()); gateway.KindOf(err) != gateway.KindConflict {
		t.Fatalf("the start: %v", err)
	}
	notify("READY=1") // all before it has arrived
	buf := make([]byte, 256)
	if n, err := messages.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("systemd was sent %q, %v", buf[:n], err)
	}
}

// The name server of the ACME challenge has its sockets passed on like the others, over TCP and UDP.
func TestResponderSocketsArePassedOn(t *testing.T) {
	probe := listenAny(t)
	cfg := defaultConfig()
	cfg.RunDir, cfg.HTTPSPort, cfg.HTTPPort, cfg.SMTPPort = t.TempDir(), 0, 0, 0
	cfg.ACME = &acmeConfig{Challenge: "responder"}
	cfg.ACME.Responder.Port = portOf(probe)
	if err := probe.Close(); err != nil {
		t.Fatal(err)
	}
	first, kept, err := openSockets(t.Context(), cfg, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	at := first.responder.tcp[0].Addr().String()
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", at)
	if err != nil {
		t.Fatalf("between two daemons: %v", err)
	}
	defer client.Close()
	question, err := new(net.Dialer).DialContext(t.Context(), "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer question.Close()
	if _, err := question.Write([]byte("between")); err != nil {
		t.Fatal(err)
	}
	value, err := inherit(kept)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(socketsVar, value)
	second, again, err := openSockets(t.Context(), cfg, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if c, err := second.responder.tcp[0].Accept(); err != nil || c.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("TCP: %v", err)
	}
	buf := make([]byte, 16)
	if n, from, err := second.responder.udp[0].ReadFrom(buf); err != nil || string(buf[:n]) != "between" || from.String() != question.LocalAddr().String() {
		t.Errorf("UDP: %q of %v, %v", buf[:n], from, err)
	}
	if err := second.close(); err != nil {
		t.Error(err)
	}
}

// Of more sockets than execve(2) takes names of, the first are passed on. Those of one name share it.
func TestPassedSocketsAreLimited(t *testing.T) {
	kept := sockets.New(nil)
	t.Cleanup(kept.Close)
	open := func(name string) {
		t.Helper()
		l, err := listenTCP(t.Context(), kept, name, netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	for i := range 200 {
		open(fmt.Sprintf("tap-%01000d", i))
		open(fmt.Sprintf("tap-%01000d", i))
	}
	value, err := inherit(kept)
	if err != nil || len(value) > 128<<10 || len(value) < 126<<10 {
		t.Fatalf("%d bytes, %v", len(value), err)
	}
	cmd := exec.CommandContext(t.Context(), "true")
	cmd.Env = []string{socketsVar + "=" + value}
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	if names, passed := strings.Count(value, "="), strings.Count(value, "=")+strings.Count(value, ","); passed < 2*names-1 {
		t.Errorf("%d sockets of %d names", passed, names)
	}
}

func listenAny(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // it may be closed
	return l
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// passOn passes a duplicate of a socket to this process, as the daemon before it would.
func passOn(t *testing.T, name string, l net.Listener) {
	t.Helper()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := syscall.Dup(int(file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(socketsVar, strings.TrimSpace(fmt.Sprintf("%s %s=%d", os.Getenv(socketsVar), name, fd)))
}

// notifySocket is systemd's.
func notifySocket(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify.sock")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() }) // it was read
	t.Setenv("NOTIFY_SOCKET", path)
	return socket
}
