package vmhost_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/libvirt/libvirttest"
)

// Changes that others make through libvirt, and calls that libvirtd carries out late.

func virsh(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "virsh", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// libvirt-guests saves every guest when the host shuts down. Its memory is not lost, and its
// credentials stay good.
func TestSavedMemoryIsRestored(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	r.stop()
	virsh(t, "managedsave", m.ID.String())
	r.run(t)
	r.wantState(t, m.ID, "running")
	virsh(t, "managedsave", m.ID.String()) // and again, beneath a daemon that runs
	r.wantState(t, m.ID, "running")
	r.press(t, m.ID, "x")
	r.wantLog(t, m.ID, libvirttest.Greeting+"x") // it has booted once
	if got := r.machine(t, m.ID).Incarnation; got != 1 {
		t.Errorf("incarnation %d, want 1", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var phases []string
	_ = r.host.Wait(ctx, m.ID, func(p gateway.Progress) { phases = append(phases, p.Phase) }) // it has no sshd
	if len(phases) != 1 || phases[0] != "kernel" {
		t.Errorf("phases of a restored VM: %v", phases)
	}
}

// A saved VM that is to be stopped keeps its memory until it is started, or stopped by force.
func TestSavedMemoryOfAStoppedVM(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	save := func() {
		t.Helper()
		r.stop()
		virsh(t, "managedsave", m.ID.String())
		stopped := r.machine(t, m.ID)
		stopped.Desired = gateway.Stopped
		gatewaytest.Must(t, r.records.Save(t.Context(), stopped))
		r.run(t)
		r.wantState(t, m.ID, "stopped")
		gatewaytest.Must(t, r.host.Stop(t.Context(), m.ID, false))
	}
	save()
	if reason := r.host.Status(t.Context(), m.ID).Reason; !strings.Contains(reason, "its memory is saved") {
		t.Errorf("reason: %q", reason)
	}
	gatewaytest.Must(t, r.host.Start(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 1)
	r.wantState(t, m.ID, "running")
	gatewaytest.Must(t, r.host.Restart(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 2)
	save()
	gatewaytest.Must(t, r.host.Stop(t.Context(), m.ID, true))
	gatewaytest.Must(t, r.host.Start(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 3)
}

// A stop by force that libvirtd did not answer is done later, even if the guest ignores the power
// button.
func TestForceStopIsRecorded(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	r.press(t, m.ID, libvirttest.KeyDeaf)
	daemon.Freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	wantError(t, r.host.Stop(ctx, m.ID, true), gateway.KindUnavailable, "")
	if got := r.machine(t, m.ID); got.Desired != gateway.Stopped || !got.ForceStop {
		t.Errorf("recorded: %s, force %v", got.Desired, got.ForceStop)
	}
	r.stop()
	daemon.Thaw(t)
	r.run(t)
	r.wantState(t, m.ID, "stopped")
	gatewaytest.Eventually(t, func() error {
		if r.machine(t, m.ID).ForceStop {
			return context.DeadlineExceeded
		}
		return nil
	})
	gatewaytest.Must(t, r.host.Start(t.Context(), m.ID))
	if got := r.machine(t, m.ID); got.Desired != gateway.Running || got.ForceStop {
		t.Errorf("recorded after a start: %s, force %v", got.Desired, got.ForceStop)
	}
}

// A restart whose client or daemon goes away before the guest has shut down is finished: by the worker,
// and by the next daemon. The poweroff after it is one from inside again.
func TestInterruptedRestartStartsTheVM(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	interrupt := func() {
		t.Helper()
		r.press(t, m.ID, libvirttest.KeyDeaf) // so that only a key powers it off
		ctx, cancel := context.WithCancel(t.Context())
		restarted := make(chan error, 1)
		go func() { restarted <- r.host.Restart(ctx, m.ID) }()
		gatewaytest.WaitFor(t, "the restart is recorded", func() bool { return r.machine(t, m.ID).Restarting })
		cancel()
		if err := <-restarted; err == nil {
			t.Error("the guest has shut down")
		}
	}
	interrupt()
	r.press(t, m.ID, libvirttest.KeyPowerOff)
	r.waitGreetings(t, m.ID, 2)
	r.wantState(t, m.ID, "running")

	interrupt()
	console, err := r.host.Console(t.Context(), m.ID)
	gatewaytest.Must(t, err)
	r.stop()
	_, err = console.Write([]byte(libvirttest.KeyPowerOff))
	gatewaytest.Must(t, err)
	waitEnded(t, m.ID)
	r.run(t)
	r.waitGreetings(t, m.ID, 3)
	r.wantState(t, m.ID, "running")
	if got := r.machine(t, m.ID); got.Restarting || got.Incarnation != 3 {
		t.Errorf("recorded: %+v", got)
	}
	r.press(t, m.ID, libvirttest.KeyPowerOff)
	r.wantState(t, m.ID, "stopped")
}

// A definition that timed out, and that libvirtd makes when its VM has been removed, is undefined.
func TestLateDefinitionIsUndefined(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	late := filepath.Join(t.TempDir(), "late.xml")
	write(t, late, []byte(virsh(t, "dumpxml", "--inactive", m.ID.String())))
	gatewaytest.Must(t, r.host.Remove(t.Context(), m.ID))
	virsh(t, "define", late)
	client := libvirt.New(libvirt.Config{})
	defer client.Close()
	gatewaytest.Eventually(t, func() error {
		if state, err := client.State(t.Context(), m.ID); err != nil || state != libvirt.Absent {
			return context.DeadlineExceeded
		}
		return nil
	})
}

// A tap that was removed is back within seconds, with its listeners; QEMU holds the old one, which
// the status reports.
func TestNewTapUnderARunningVM(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	ip := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	ip("link", "del", m.Tap())
	gatewaytest.Eventually(t, func() error {
		if got := r.host.Status(t.Context(), m.ID); got.State != "running" || !strings.Contains(got.Reason, "lodge restart blog") {
			return fmt.Errorf("status: %+v", got)
		}
		return nil
	})
	out, err := exec.CommandContext(t.Context(), "ss", "-Hltn").CombinedOutput()
	if index := strings.SplitN(ip("-o", "link", "show", m.Tap()), ":", 2)[0]; err != nil || !strings.Contains(string(out), m.Tap()+":80") && !strings.Contains(string(out), "%if"+index+":80") {
		t.Errorf("no listener on the new tap, index %s: %v\n%s", index, err, out)
	}
	gatewaytest.Must(t, r.host.Restart(t.Context(), m.ID))
	gatewaytest.Eventually(t, func() error {
		if got := r.host.Status(t.Context(), m.ID); got.State != "running" || got.Reason != "" {
			return fmt.Errorf("status after a restart: %+v", got)
		}
		return nil
	})
}

// A libvirtd that hangs delays a list of all VMs by 2 s.
func TestStatusesOfAHungLibvirtd(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	if got := r.host.Statuses(t.Context()); len(got) != 1 || got[m.ID].State != "running" {
		t.Errorf("got %+v", got)
	}
	daemon.Freeze(t)
	defer daemon.Thaw(t)
	begun := time.Now()
	if got := r.host.Statuses(t.Context()); got[m.ID].State != "unknown" || time.Since(begun) > 4*time.Second {
		t.Errorf("got %+v after %s", got, time.Since(begun))
	}
}
