package vmhost_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt/libvirttest"
)

// A running VM is recorded without a restart, and its disk is a chain of that. Each rollback boots it
// once, and a fork runs beside it.
func TestUndoOfARunningVM(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	before, written := pid(t, m.ID), ""
	for _, name := range []string{"one", "two"} {
		begun := time.Now()
		_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: name, Kind: gateway.CheckpointAsked})
		gatewaytest.Must(t, err)
		t.Logf("%s took %s", name, time.Since(begun))
		r.press(t, m.ID, libvirttest.KeyWrite)
		written += libvirttest.KeyWrite
		r.wantLog(t, m.ID, libvirttest.Greeting+written) // the guest's serial port holds one key
	}
	if _, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "frozen", Quiesce: true}); gateway.KindOf(err) != gateway.KindConflict || !strings.Contains(err.Error(), "agent") {
		t.Errorf("a guest without an agent: %v", err)
	}
	if got := pid(t, m.ID); got != before {
		t.Errorf("QEMU was process %d and is %d now", before, got)
	}
	top := string(r.machine(t, m.ID).Disk)
	if blocks := virsh(t, "domblklist", m.ID.String()); !strings.Contains(blocks, top+".qcow2") {
		t.Errorf("the domain writes to\n%s, not to %s", blocks, top)
	}
	if left, err := filepath.Glob(filepath.Join(r.config.StateDir, "disks", "*.qcow2")); err != nil || len(left) != 3 {
		t.Errorf("disks: %v, %v", left, err)
	}

	undo, err := r.host.Rollback(t.Context(), m.ID, "one", false)
	gatewaytest.Must(t, err)
	r.waitGreetings(t, m.ID, 2)
	r.wantState(t, m.ID, "running")
	twin, err := r.host.Fork(t.Context(), m.ID, "", gateway.Spec{Name: "twin"}, func(gateway.Progress) {})
	gatewaytest.Must(t, err)
	r.waitGreetings(t, twin.ID, 1)
	r.press(t, twin.ID, libvirttest.KeyWrite)
	r.restart(t)
	if _, err := r.host.Rollback(t.Context(), m.ID, undo.Name, false); err != nil {
		t.Fatal(err)
	}
	r.waitGreetings(t, m.ID, 3)
	if all, _ := r.host.Checkpoints(m.ID); len(all) != 4 {
		t.Errorf("checkpoints: %+v", all)
	}
	gatewaytest.Must(t, r.host.Restart(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 4)
	gatewaytest.Must(t, r.host.Stop(t.Context(), m.ID, true))
	if _, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "off"}); err != nil {
		t.Errorf("of a VM that is off: %v", err)
	}
	if _, err := r.host.Rollback(t.Context(), m.ID, "off", false); err != nil || r.host.Status(t.Context(), m.ID).State != "stopped" {
		t.Errorf("of a VM that is off: %v, %+v", err, r.host.Status(t.Context(), m.ID))
	}
	gatewaytest.Must(t, r.host.Remove(t.Context(), m.ID))
	gatewaytest.Must(t, r.host.Restart(t.Context(), twin.ID))
	r.waitGreetings(t, twin.ID, 2)
	gatewaytest.Must(t, r.host.Remove(t.Context(), twin.ID))
	r.wantNothing(t)
}

// A fork of a fork, and so on 30 deep, each of a VM that runs: each boots from what its parent has
// written, and runs on when that is removed.
func TestForksOfRunningForks(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	disks := filepath.Join(r.config.StateDir, "disks", "*.*")
	for n := range 30 {
		r.press(t, m.ID, libvirttest.KeyWrite)
		r.wantLog(t, m.ID, libvirttest.Greeting+libvirttest.KeyWrite)
		fork, err := r.host.Fork(t.Context(), m.ID, "", gateway.Spec{Name: fmt.Sprint("fork", n)}, func(gateway.Progress) {})
		gatewaytest.Must(t, err)
		r.waitGreetings(t, fork.ID, 1)
		gatewaytest.Must(t, r.host.Remove(t.Context(), m.ID))
		m = fork
		if left, err := filepath.Glob(disks); err != nil || len(left) > 17 { // of fewer than 16 layers, and the seed
			t.Fatalf("fork %d: disks %v, %v", n, left, err)
		}
	}
	gatewaytest.Must(t, r.host.Restart(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 2)
	gatewaytest.Must(t, r.host.Remove(t.Context(), m.ID))
	r.wantNothing(t)
}

// A change of the disk that libvirtd did not answer is finished, by the worker or the next daemon: the
// record and the domain name the same file.
func TestUnansweredPivot(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	first := r.machine(t, m.ID).Disk
	marked := make(chan struct{})
	r.stop()
	r.config.Parts = []gateway.Part{stopper{func() { daemon.Freeze(t); marked <- struct{}{} }}}
	r.run(t)
	r.wantState(t, m.ID, "running")
	for asked := false; !asked; daemon.Thaw(t) {
		ctx, cancel := context.WithCancel(t.Context())
		made := make(chan error, 1)
		go func() {
			_, err := r.host.Checkpoint(ctx, m.ID, gateway.CheckpointRequest{Name: "one"})
			made <- err
		}()
		<-marked
		cancel()
		err := <-made
		if err == nil {
			t.Error("a checkpoint without an answer")
		}
		if asked = err == nil || !strings.Contains(err.Error(), "to be marked"); asked { // else it was cancelled before
			r.stop()
		}
	}
	r.config.Parts = nil
	r.run(t)
	gatewaytest.Eventually(t, func() error {
		now := r.machine(t, m.ID).Disk
		if now == first || !strings.Contains(virsh(t, "domblklist", m.ID.String()), string(now)+".qcow2") {
			return errors.New("record and domain differ")
		}
		return nil
	})
	if all, _ := r.host.Checkpoints(m.ID); len(all) != 0 {
		t.Errorf("checkpoints: %+v", all)
	}
	_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "two"})
	gatewaytest.Must(t, err)
	r.press(t, m.ID, libvirttest.KeyWrite)
	gatewaytest.Must(t, r.host.Restart(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 2)
}

// stopper is a Part without a state, which calls a function at each mark.
type stopper struct{ mark func() }

func (s stopper) Mark(context.Context, gateway.ID, gateway.CheckpointID) (func(), error) {
	s.mark()
	return func() {}, nil
}
func (stopper) Rewind(context.Context, gateway.ID, gateway.CheckpointID) error { return nil }

func (stopper) Fork(context.Context, gateway.ID, gateway.CheckpointID, gateway.ID) error { return nil }

func (stopper) Drop(context.Context, gateway.ID, gateway.CheckpointID) error { return nil }

func (stopper) Marks(context.Context, gateway.ID) ([]gateway.CheckpointID, error) { return nil, nil }
