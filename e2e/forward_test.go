package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway/api"
)

// forwards: ssh and a UDP echo of a VM answer on ports of the host, also after a kill -9 of lodged.
// They close while the VM is off, and are free for another VM once it is removed.
func (s *suite) forwards(t *testing.T) {
	vm := s.fresh(t, "forwarded")
	s.h.Lodge(t, "forward", "forwarded", "2222:22/tcp")
	s.h.Lodge(t, "forward", "forwarded", "127.0.0.1:5353:5353/udp")
	vm.Run(t, `sudo systemd-run --quiet --unit=echo python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5353))
while True:
    data, peer = s.recvfrom(65536)
    s.sendto(data + b" from " + peer[0].encode(), peer)'
		until ss -Hlun | grep -q :5353; do sleep 0.2; done`)
	answers := func() {
		t.Helper()
		harness.Eventually(t, "the VM's sshd answers on port 2222", time.Minute, func() error { return banner(t) })
		harness.Eventually(t, "the VM's echo answers on port 5353", time.Minute, func() error { return echoed(t) })
	}
	answers()
	for _, refused := range [][2]string{
		{"2222:22/tcp", "port 2222/tcp of the host leads to port 22 of forwarded already"},
		{"443:443/tcp", "port 443/tcp of the host is lodged's own (https_port)"},
	} {
		if r := s.h.TryLodge(t, "forward", "beta", refused[0]); r.Code != 1 || !strings.Contains(r.Stderr, refused[1]) {
			t.Errorf("lodge forward beta %s ended with %d: %s", refused[0], r.Code, r.Text())
		}
	}
	s.daemon.Kill(t)
	s.daemon = s.h.StartDaemon(t)
	answers()
	for _, f := range harness.JSON[[]api.Forward](t, s.h, "forward", "ls") {
		if f.VM != "forwarded" || f.State != "listening" {
			t.Errorf("after kill -9: %+v", f)
		}
	}
	s.h.Lodge(t, "stop", "forwarded")
	if err := banner(t); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection to a VM that is off: %v, want a reset", err)
	}
	s.h.Lodge(t, "start", "forwarded")
	harness.Eventually(t, "sshd answers on port 2222 again", 3*time.Minute, func() error { return banner(t) })
	s.h.Lodge(t, "rm", "--yes", "forwarded")
	if err := banner(t); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection to a VM that is removed: %v, want it refused", err)
	}
	s.h.Lodge(t, "forward", "beta", "2222:22/tcp")
	answer := banner(t)
	s.h.Lodge(t, "forward", "rm", "2222/tcp")
	if answer != nil {
		t.Errorf("the port of a removed VM, forwarded to another: %v", answer)
	}
}

// banner reads what an sshd sends first (RFC 4253 §4.2), by port 2222 of the host.
func banner(t *testing.T) error {
	t.Helper()
	return said(t, "tcp", "127.0.0.1:2222", "", "SSH-2.0-")
}

// echoed sends a datagram. Its answer has the address from which the VM has got it.
func echoed(t *testing.T) error {
	t.Helper()
	return said(t, "udp", "127.0.0.1:5353", "hello", "hello from 169.254.169.254")
}

func said(t *testing.T, network, at, send, want string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, network, at)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // a read reports it
	if send != "" {
		if _, err := c.Write([]byte(send)); err != nil {
			return err
		}
	}
	buf := make([]byte, 256)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(buf[:n]), want) {
		return fmt.Errorf("%s answers %q, want %q", at, buf[:n], want)
	}
	return nil
}
