// Package libvirttest runs a real libvirtd, with virtlogd, for tests. It mounts empty directories
// over libvirt's own, so the tests must be in a sandbox: func TestMain(m *testing.M) {
// libvirttest.Main(m) }. /dev/kvm is the machine's: packaging/deps opens it, without which each start
// of a guest takes 20 s.
package libvirttest

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/gateway/sandboxtest"
)

// Main runs the tests in a sandbox. They share libvirt's cache, because probing QEMU's capabilities
// takes seconds.
func Main(m *testing.M) { sandboxtest.Main(m, sandboxtest.Tmpfs("/var/cache/libvirt")) }

// Socket is where the daemon listens.
const Socket = "/run/libvirt/libvirt-sock"

// ready is how long a daemon may take to listen.
const ready = 30 * time.Second

// Daemon is a libvirtd that ends with its test, as do its guests.
type Daemon struct {
	cmd  *exec.Cmd
	logs string
}

// Start mounts empty directories, starts virtlogd and libvirtd and waits until both listen.
func Start(tb testing.TB) *Daemon {
	tb.Helper()
	for _, dir := range []string{"/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/etc/libvirt/qemu"} {
		mountEmpty(tb, dir)
	}
	d := &Daemon{logs: tb.TempDir()}
	virtlogd := d.run(tb, "virtlogd", "/run/libvirt/virtlogd-sock")
	tb.Cleanup(func() { end(virtlogd) })
	d.cmd = d.run(tb, "libvirtd", Socket)
	tb.Cleanup(func() {
		d.Kill()
		endGuests(tb)
		if tb.Failed() {
			text, _ := os.ReadFile(filepath.Join(d.logs, "libvirtd")) // an unreadable log is shown as empty
			tb.Logf("libvirtd's log:\n%s", text)
		}
	})
	return d
}

// Kill ends libvirtd by SIGKILL. Its guests keep running.
func (d *Daemon) Kill() { end(d.cmd) }

// Again starts libvirtd after Kill.
func (d *Daemon) Again(tb testing.TB) {
	tb.Helper()
	d.cmd = d.run(tb, "libvirtd", Socket)
}

// Freeze stops libvirtd from answering until Thaw.
func (d *Daemon) Freeze(tb testing.TB) {
	tb.Helper()
	d.signal(tb, syscall.SIGSTOP)
}

// Thaw undoes Freeze.
func (d *Daemon) Thaw(tb testing.TB) {
	tb.Helper()
	d.signal(tb, syscall.SIGCONT)
}

func (d *Daemon) signal(tb testing.TB, s syscall.Signal) {
	tb.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		tb.Fatalf("signal libvirtd: %v", err)
	}
}

func mountEmpty(tb testing.TB, dir string) {
	tb.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
		tb.Fatalf("mount over %s: %v", dir, err)
	}
	tb.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // the namespace ends anyway
}

// CloseKVM makes /dev/kvm, where there is one, accessible to root only, as on a host without udev
// where packaging/deps has not run. Call it after Start.
func CloseKVM(tb testing.TB) {
	tb.Helper()
	var old syscall.Stat_t
	if syscall.Stat("/dev/kvm", &old) != nil {
		return
	}
	const node = "/run/libvirt/kvm"
	err := syscall.Mknod(node, syscall.S_IFCHR|0o600, int(old.Rdev))
	if err = errors.Join(err, syscall.Mount(node, "/dev/kvm", "", syscall.MS_BIND, "")); err != nil {
		tb.Fatalf("mount over /dev/kvm: %v", err)
	}
	tb.Cleanup(func() { _ = syscall.Unmount("/dev/kvm", syscall.MNT_DETACH) }) // the namespace ends anyway
}

// run starts a daemon in the foreground and waits until it listens at socket.
func (d *Daemon) run(tb testing.TB, name, socket string) *exec.Cmd {
	tb.Helper()
	logs, err := os.OpenFile(filepath.Join(d.logs, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = logs.Close() }()                   // the daemon has its own copy
	pidFile := filepath.Join("/run/libvirt", name+".pid") // not in /run, which a sandbox may share with others
	cmd := exec.Command(name, "-p", pidFile)              //nolint:noctx // it outlives t.Context, which ends before the cleanups that need it
	cmd.Stdout, cmd.Stderr = logs, logs
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", name, err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(ready); ; <-tick.C {
		if c, err := net.Dial("unix", socket); err == nil { //nolint:noctx // a local socket answers at once
			_ = c.Close() // nothing was written
			return cmd
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(logs.Name()) // it is for the message only
			tb.Fatalf("%s did not listen at %s:\n%s", name, socket, text)
		}
	}
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it may have ended already
	_ = cmd.Wait()         // the error reports only the kill
}

// endGuests kills the QEMU processes that libvirtd has started, by its pid files.
func endGuests(tb testing.TB) {
	tb.Helper()
	files, _ := filepath.Glob("/run/libvirt/qemu/*.pid") // the pattern is valid
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // ended meanwhile
		}
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && pid > 1 {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	}
}
