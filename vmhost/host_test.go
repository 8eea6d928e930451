package vmhost_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/libvirt/libvirttest"
)

// Every verb on one VM.
func TestLife(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	if !m.Ready || m.Desired != gateway.Running || m.Incarnation != 1 || !strings.HasPrefix(m.HostKey, "ssh-ed25519 ") {
		t.Errorf("the new VM is %+v", m)
	}
	if err := r.host.Start(t.Context(), m.ID); err != nil {
		t.Errorf("start a running VM: %v", err)
	}
	if err := r.host.Restart(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	r.waitGreetings(t, m.ID, 2)
	if err := r.host.Stop(t.Context(), m.ID, false); err != nil {
		t.Fatal(err)
	}
	r.wantState(t, m.ID, "stopped")
	if err := r.host.Stop(t.Context(), m.ID, false); err != nil {
		t.Errorf("stop a stopped VM: %v", err)
	}
	if err := r.host.Start(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	r.waitGreetings(t, m.ID, 3)
	if got := r.machine(t, m.ID).Incarnation; got != 3 {
		t.Errorf("incarnation %d after three starts", got)
	}
	if err := r.host.Remove(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	r.wantNothing(t)
	if len(r.removed) != 1 || r.removed[0] != m.ID {
		t.Errorf("OnRemove was called for %v, want %v once", r.removed, m.ID)
	}
	if err := r.host.Start(t.Context(), m.ID); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("start a removed VM: %v", err)
	}
}

// A poweroff from inside leaves the VM off, also when no daemon was running at the time.
func TestPoweredOffFromInside(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	r.press(t, m.ID, libvirttest.KeyReset)
	r.waitGreetings(t, m.ID, 2)
	r.press(t, m.ID, libvirttest.KeyPowerOff)
	r.wantState(t, m.ID, "stopped")
	if err := r.host.Start(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	r.waitGreetings(t, m.ID, 3)
	console, err := r.host.Console(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	if _, err := console.Write([]byte(libvirttest.KeyPowerOff)); err != nil {
		t.Fatal(err)
	}
	waitEnded(t, m.ID)
	r.run(t)
	r.wantState(t, m.ID, "stopped")
	r.waitGreetings(t, m.ID, 3)
}

func TestStartedAgainWhenQEMUDies(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	kill(t, pid(t, m.ID), syscall.SIGKILL)
	r.waitGreetings(t, m.ID, 2)
	r.wantState(t, m.ID, "running")
	if got := r.machine(t, m.ID).Incarnation; got != 2 {
		t.Errorf("incarnation %d, want 2", got)
	}
}

// Neither a restart of the daemon nor one of libvirtd touches a running VM; both see what has
// changed meanwhile.
func TestRestartsTouchNothing(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	stays, ends := r.make(t, "stays"), r.make(t, "ends")
	before := pid(t, stays.ID)
	r.stop()
	kill(t, pid(t, ends.ID), syscall.SIGKILL)
	r.run(t)
	r.waitGreetings(t, ends.ID, 2)

	daemon.Kill()
	r.wantState(t, stays.ID, "unknown")
	if reason := r.host.Status(t.Context(), stays.ID).Reason; !strings.Contains(reason, "systemctl start libvirtd") {
		t.Errorf("libvirtd is gone, and the reason is %q", reason)
	}
	kill(t, pid(t, ends.ID), syscall.SIGKILL)
	daemon.Again(t)
	r.waitGreetings(t, ends.ID, 3)
	r.wantState(t, stays.ID, "running")
	r.waitGreetings(t, stays.ID, 1)
	if after := pid(t, stays.ID); after != before {
		t.Errorf("QEMU was process %d and is %d now", before, after)
	}
}

func TestDeafGuest(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	r.stop()
	r.config.StopTimeout = time.Second
	r.run(t)
	r.press(t, m.ID, libvirttest.KeyDeaf)
	err := r.host.Stop(t.Context(), m.ID, false)
	wantError(t, err, gateway.KindConflict, "lodge stop --force blog")
	r.wantState(t, m.ID, "stopping")
	if err := r.host.Stop(t.Context(), m.ID, true); err != nil {
		t.Fatal(err)
	}
	r.wantState(t, m.ID, "stopped")
}

// A QEMU that hangs delays the verbs on its own VM only; force ends it.
func TestStuckDomainBlocksNoOther(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	stuck, other := r.make(t, "stuck"), r.make(t, "other")
	kill(t, pid(t, stuck.ID), syscall.SIGSTOP)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.host.Stop(ctx, stuck.ID, false) }()
	gatewaytest.Eventually(t, func() error {
		if r.machine(t, stuck.ID).Desired != gateway.Stopped {
			return errors.New("not to be stopped yet")
		}
		return nil
	})
	if err := r.host.Restart(t.Context(), other.ID); err != nil {
		t.Fatal(err)
	}
	r.waitGreetings(t, other.ID, 2)
	cancel()
	if err := <-stopped; err == nil {
		t.Error("a stuck VM was stopped")
	}
	if err := r.host.Stop(t.Context(), stuck.ID, true); err != nil {
		t.Fatal(err)
	}
	r.wantState(t, stuck.ID, "stopped")
}

// A full host disk pauses a VM at its write, and nothing is lost: once there is room, the VM
// resumes.
func TestFullDiskPausesVM(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	disk := sandboxtest.SmallDisk(t, 4<<20)
	open(t, disk)
	r := newRig(t, disk)
	m := r.make(t, "blog")
	full := filepath.Join(disk, "full")
	fill(t, full)
	r.press(t, m.ID, libvirttest.KeyWrite)
	gatewaytest.Eventually(t, func() error {
		if got := r.host.Status(t.Context(), m.ID); got.State != "crashed" || !strings.Contains(got.Reason, "df -h") {
			return fmt.Errorf("the VM is %+v", got)
		}
		return nil
	})
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	r.wantLog(t, m.ID, libvirttest.Greeting+libvirttest.KeyWrite)
	r.wantState(t, m.ID, "running")
}

func TestHalfMadeIsTakenAway(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	r.stop()
	m := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "half"}, Size: gateway.Size{Image: "tiny"}, Desired: gateway.Running}
	if _, err := r.records.Create(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.config.StateDir, "disks", m.ID.String()+".img.new"), []byte("cut off"))
	r.run(t)
	gatewaytest.Eventually(t, func() error {
		if len(r.config.Directory.All()) > 0 {
			return errors.New("it is still there")
		}
		return nil
	})
	r.wantNothing(t)
	r.make(t, "half") // the name is free
}

// A removal that was cut short continues in the next daemon, and at once if only its last steps
// failed.
func TestRemovalGoesOn(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	daemon.Kill()
	wantError(t, r.host.Remove(t.Context(), m.ID), gateway.KindUnavailable, "systemctl start libvirtd")
	if _, ok := r.config.Directory.ByName("blog"); ok {
		t.Error("the name is still in use")
	}
	r.restart(t)
	daemon.Again(t)
	gatewaytest.Eventually(t, func() error {
		if len(r.config.Directory.All()) > 0 {
			return errors.New("it is still there")
		}
		return nil
	})
	r.wantNothing(t)
	waitEnded(t, m.ID)
}

func TestNewFailsWithoutATrace(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	t.Run("disk full", func(t *testing.T) {
		r := newRig(t, sandboxtest.SmallDisk(t, 4<<20))
		fill(t, filepath.Join(r.config.StateDir, "full"))
		_, err := r.host.New(t.Context(), gateway.Spec{Name: "blog"}, func(gateway.Progress) {})
		wantError(t, err, gateway.KindNoSpace, "df -h")
		r.wantNothing(t)
	})
	t.Run("libvirt refuses", func(t *testing.T) {
		r := newRig(t, "/var/tmp")
		if err := os.RemoveAll(filepath.Join(r.config.RunDir, "console")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/proc/nowhere", filepath.Join(r.config.RunDir, "console")); err != nil {
			t.Fatal(err)
		}
		_, err := r.host.New(t.Context(), gateway.Spec{Name: "blog"}, func(gateway.Progress) {})
		wantError(t, err, gateway.KindInternal, "")
		if all := r.config.Directory.All(); len(all) != 0 {
			t.Errorf("the directory still has %v", all)
		}
	})
	t.Run("caller gone", func(t *testing.T) {
		r := newRig(t, "/var/tmp")
		ctx, cancel := context.WithCancel(t.Context())
		_, err := r.host.New(ctx, gateway.Spec{Name: "blog"}, func(gateway.Progress) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("New: %v, want context.Canceled", err)
		}
		r.wantNothing(t)
	})
}

func TestNewWithoutLibvirtd(t *testing.T) {
	r := newRig(t, t.TempDir())
	r.stop()
	r.config.LibvirtSocket = filepath.Join(t.TempDir(), "nobody")
	r.run(t)
	_, err := r.host.New(t.Context(), gateway.Spec{Name: "blog"}, func(gateway.Progress) {})
	wantError(t, err, gateway.KindUnavailable, "systemctl start libvirtd")
	r.wantNothing(t)
}

func TestStrayDomainIsLeftAlone(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	r.stop()
	if err := r.records.Delete(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	r.run(t)
	other := r.make(t, "other") // by now the stray was seen
	client := libvirt.New(libvirt.Config{})
	defer client.Close()
	if state, err := client.State(t.Context(), m.ID); state != libvirt.Running {
		t.Errorf("the stray is %s (%v), want running", state, err)
	}
	if _, err := os.Stat("/sys/class/net/" + m.Tap()); err == nil {
		t.Error("the stray still has a tap")
	}
	r.wantState(t, other.ID, "running")
}

func TestConsoleAndLog(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	ctx, cancel := context.WithCancel(t.Context())
	log, err := r.host.Log(ctx, m.ID, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // it was only read
	console, err := r.host.Console(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.host.Console(t.Context(), m.ID)
	wantError(t, err, gateway.KindConflict, "lodge logs --follow blog")
	if _, err := console.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	want := libvirttest.Greeting + "x"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(log, got); err != nil || string(got) != want {
		t.Errorf("the log has %q (%v), want %q", got, err, want)
	}
	cancel()
	if rest, err := io.ReadAll(log); err != nil || len(rest) > 0 {
		t.Errorf("after its reader has left, the log has %q, %v", rest, err)
	}
	if err := console.Close(); err != nil {
		t.Fatal(err)
	}
	r.press(t, m.ID, libvirttest.KeyPowerOff) // free again
	r.wantState(t, m.ID, "stopped")
	_, err = r.host.Console(t.Context(), m.ID)
	wantError(t, err, gateway.KindConflict, "lodge start blog")
}

func wantError(t *testing.T, err error, kind gateway.Kind, hint string) {
	t.Helper()
	e, _ := errors.AsType[*gateway.Error](err)
	if gateway.KindOf(err) != kind || err == nil || (hint != "" && (e == nil || !strings.Contains(e.Hint, hint))) {
		t.Errorf("got %v (%+v), want %s with a hint about %q", err, e, kind, hint)
	}
}

func kill(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// waitEnded waits until the VM's QEMU has ended.
func waitEnded(t *testing.T, id gateway.ID) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		if _, err := os.Stat("/run/libvirt/qemu/" + libvirt.DomainName(id) + ".pid"); err == nil {
			return errors.New("QEMU still runs")
		}
		return nil
	})
}

// fill writes to file until the disk is full.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 16; size > 0; size /= 2 {
		for err = nil; err == nil; _, err = f.Write(make([]byte, size)) {
		}
	}
	if err := f.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
