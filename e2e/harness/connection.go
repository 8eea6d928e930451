package harness

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"lodge/gateway"
)

// connection is a login of ssh in a guest that its commands share, since under TCG a login takes
// seconds. ssh listens at the socket for them; a command that finds nobody there logs in by itself.
type connection struct {
	mu    sync.Mutex
	end   context.CancelFunc
	ended chan struct{} // nil before the first login
}

// connection returns the one to a guest, which may not be open.
func (h *Host) connection(vm string) *connection {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connections == nil {
		h.connections = map[string]*connection{}
	}
	if h.connections[vm] == nil {
		h.connections[vm] = &connection{}
	}
	return h.connections[vm]
}

// ssh runs a command in the guest over the shared connection.
func (v *VM) ssh(t testing.TB, stdin io.Reader, command ...string) Result {
	t.Helper()
	socket := filepath.Join(v.host.Dir, "ssh-"+v.Name)
	v.host.connection(v.Name).open(t, v.host, v.Name, socket)
	return v.host.tryLodge(t, stdin, append([]string{"ssh", "-o", "ControlPath=" + socket, v.Name}, command...)...)
}

// open logs in, unless the connection is open, and waits until ssh listens or has failed.
func (c *connection) open(t testing.TB, h *Host, vm, socket string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		select {
		case <-c.ended:
		default:
			return
		}
	}
	_ = os.Remove(socket)                                              // of an ssh that was killed
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context())) // other tests use it after this one
	cmd := exec.CommandContext(ctx, filepath.Join(Programs(t, h.Race), "lodge"), "--socket", gateway.ControlSocket(h.RunDir),
		"ssh", "-N", "-o", "ControlMaster=yes", "-o", "ControlPath="+socket, "-o", "ServerAliveInterval=20", "-o", "ServerAliveCountMax=6", vm)
	cmd.Env = h.env()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // which lodge passes to ssh
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.end, c.ended = end, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = cmd.Wait() // the command that needs the connection reports why there is none
	}(c.ended)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-c.ended:
			return
		case <-tick.C:
			if _, err := os.Stat(socket); err == nil {
				return
			}
		}
	}
}

// Disconnect ends the connection to the guest. Needed before it goes down without closing it.
func (v *VM) Disconnect() { v.host.connection(v.Name).close() }

func (c *connection) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		c.end()
		<-c.ended
	}
}

func (h *Host) disconnect() {
	for vm := range h.connections {
		h.connection(vm).close()
	}
}
