package harness

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Daemon is one lodged process.
type Daemon struct {
	cmd  *exec.Cmd
	logs string
	done chan struct{} // closed when the process has ended
	err  error         // of the process; valid after done
}

// StartDaemon starts lodged and waits until it is ready. It ends with the Host's test.
func (h *Host) StartDaemon(t testing.TB) *Daemon {
	t.Helper()
	d := h.LaunchDaemon(t)
	Eventually(t, "lodged is ready", time.Minute, func() error {
		select {
		case <-d.done:
			t.Fatalf("lodged ended: %v\n%s", d.err, d.Log())
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return h.Health(ctx)
	})
	return d
}

// LaunchDaemon starts lodged without waiting for anything.
func (h *Host) LaunchDaemon(t testing.TB, args ...string) *Daemon {
	t.Helper()
	d := &Daemon{logs: filepath.Join(h.Dir, "lodged.log"), done: make(chan struct{})}
	logs, err := os.OpenFile(d.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close() //nolint:errcheck // the daemon has its own copy
	all := append([]string{"-config", h.config(t), "-state-dir", h.StateDir, "-run-dir", h.RunDir}, h.Args...)
	d.cmd = exec.Command(filepath.Join(Programs(t, h.Race), "lodged"), append(all, args...)...) //nolint:noctx // ended by the cleanup
	d.cmd.Env = h.env()
	d.cmd.Stdout, d.cmd.Stderr = logs, logs
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start lodged: %v", err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.done)
	}()
	h.owner.Cleanup(func() { d.Stop(h.owner) })
	return d
}

// config writes the configuration file, so that the machine's own is not read.
func (h *Host) config(t testing.TB) string {
	t.Helper()
	file := filepath.Join(h.Dir, "lodge.toml")
	if err := os.WriteFile(file, []byte(h.Config), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Kill ends lodged as kill -9 does.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("kill lodged: %v", err)
	}
	<-d.done
}

// Stop ends lodged as systemd does. It may have ended already.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-d.done:
	case <-time.After(40 * time.Second):
		t.Errorf("lodged did not end within 40 s of SIGTERM")
		d.Kill(t)
	}
}

// Ended waits until lodged has ended by itself, and returns its error.
func (d *Daemon) Ended(t testing.TB, limit time.Duration) error {
	t.Helper()
	select {
	case <-d.done:
		return d.err
	case <-time.After(limit):
		t.Fatalf("lodged still runs after %s:\n%s", limit, d.Log())
		return nil
	}
}

// Upgrade makes lodged run its program anew (SIGUSR2), and waits until it serves.
func (d *Daemon) Upgrade(t testing.TB) {
	t.Helper()
	starts := d.starts()
	d.Signal(t, syscall.SIGUSR2)
	Eventually(t, "lodged serves again", time.Minute, func() error {
		if d.starts() == starts {
			return errors.New("it has not started anew")
		}
		return nil
	})
}

// Signal sends a signal to lodged.
func (d *Daemon) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatalf("send %s to lodged: %v", s, err)
	}
}

// starts counts how often this Host's daemons began to serve.
func (d *Daemon) starts() int { return strings.Count(d.Log(), `msg="daemon ready"`) }

// PID is the process id of lodged.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log returns the log of this Host's daemons.
func (d *Daemon) Log() string {
	text, err := os.ReadFile(d.logs)
	if err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(string(text), "?")
}
