package vmhost_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/libvirt/libvirttest"
)

// snapshot makes a snapshot of a VM by virsh, after which the guest writes to the file that it returns.
func (r *rig) snapshot(t *testing.T, m gateway.VM, name string) string {
	t.Helper()
	file := filepath.Join(openDir(t, "/var/tmp"), name)
	virsh(t, "snapshot-create-as", m.ID.String(), name, "--disk-only", "--atomic", "--diskspec", "vda,file="+file, "--diskspec", "vdb,snapshot=no")
	r.press(t, m.ID, libvirttest.KeyWrite)
	r.wantLog(t, m.ID, libvirttest.Greeting+libvirttest.KeyWrite)
	return file
}

// written reports whether the guest's sector of KeyWrite is on the disk of a VM that is off.
func (r *rig) written(t *testing.T, m gateway.VM) bool {
	t.Helper()
	top := filepath.Join(r.config.StateDir, "disks", string(r.machine(t, m.ID).Disk)+".qcow2")
	out, err := exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "qcow2", "-c", "read -P 0 536870912 512", top).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "Pattern verification failed") {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Contains(string(out), "Pattern verification failed")
}

// The disk of a VM that was snapshotted by virsh is another file than the record's. There is no
// checkpoint without what is in it, and no start that would lose it, until somebody brings it back.
func TestSnapshotByVirsh(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "one"})
	gatewaytest.Must(t, err)
	own := filepath.Join(r.config.StateDir, "disks", string(r.machine(t, m.ID).Disk)+".qcow2")
	refused := func(hint string) {
		t.Helper()
		_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "two"})
		wantError(t, err, gateway.KindConflict, hint)
		_, err = r.host.Rollback(t.Context(), m.ID, "one", false)
		wantError(t, err, gateway.KindConflict, hint)
		_, err = r.host.Fork(t.Context(), m.ID, "", gateway.Spec{Name: "twin"}, func(gateway.Progress) {})
		wantError(t, err, gateway.KindConflict, hint)
		wantError(t, r.host.Restart(t.Context(), m.ID), gateway.KindConflict, hint)
	}
	r.snapshot(t, m, "theirs")
	commit := "virsh blockcommit " + libvirt.DomainName(m.ID) + " vda --base " + own + " --active --pivot"
	refused(commit)
	r.wantState(t, m.ID, "running")
	virsh(t, strings.Fields(commit)[1:]...)
	_, err = r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "two"})
	gatewaytest.Must(t, err)

	gatewaytest.Must(t, r.host.Remove(t.Context(), m.ID))
	m = r.make(t, "shop")
	_, err = r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "one"})
	gatewaytest.Must(t, err)
	own = filepath.Join(r.config.StateDir, "disks", string(r.machine(t, m.ID).Disk)+".qcow2")
	r.snapshot(t, m, "others")
	file := r.snapshot(t, m, "more") // over that one
	wantError(t, r.host.Stop(t.Context(), m.ID, false), gateway.KindConflict, "qemu-img commit")
	r.restart(t)
	r.wantState(t, m.ID, "stopped")
	commit = "qemu-img commit -b " + own + " " + file + " && virsh undefine --snapshots-metadata " + libvirt.DomainName(m.ID)
	refused(commit)
	wantError(t, r.host.Start(t.Context(), m.ID), gateway.KindConflict, commit)
	if r.written(t, m) {
		t.Fatal("the disk of the record has it already")
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", commit).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", commit, err, out)
	}
	if !r.written(t, m) {
		t.Error("the hint does not bring it back")
	}
	gatewaytest.Must(t, r.host.Start(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 2)
}

// What is in a snapshot is given up by a stop by force, and by a removal. The file stays.
func TestSnapshotByVirshIsGivenUp(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	file := r.snapshot(t, m, "theirs")
	kill(t, pid(t, m.ID), syscall.SIGKILL)
	gatewaytest.Eventually(t, func() error { // it is not started again without what is in the file
		if got := r.host.Status(t.Context(), m.ID); !strings.Contains(got.Reason, file) {
			return fmt.Errorf("status: %+v", got)
		}
		return nil
	})
	gatewaytest.Must(t, r.host.Stop(t.Context(), m.ID, true))
	gatewaytest.Must(t, r.host.Start(t.Context(), m.ID))
	r.waitGreetings(t, m.ID, 2)
	gatewaytest.Must(t, r.host.Remove(t.Context(), m.ID))
	r.wantNothing(t)
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// A rollback, a checkpoint and a fork of a VM whose domain was removed by virsh are the same as ever.
func TestUndoOfAnUndefinedVM(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "one"})
	gatewaytest.Must(t, err)
	virsh(t, "undefine", m.ID.String()) // it runs on, as one that is transient
	_, err = r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "two"})
	gatewaytest.Must(t, err)
	_, err = r.host.Rollback(t.Context(), m.ID, "one", false)
	gatewaytest.Must(t, err)
	r.waitGreetings(t, m.ID, 2)
	virsh(t, "destroy", m.ID.String())
	r.waitGreetings(t, m.ID, 3) // the worker has started it again
	virsh(t, "undefine", m.ID.String())
	virsh(t, "destroy", m.ID.String())
	_, err = r.host.Rollback(t.Context(), m.ID, "two", false)
	gatewaytest.Must(t, err)
	r.wantState(t, m.ID, "running")
	if all, _ := r.host.Checkpoints(m.ID); len(all) != 4 {
		t.Errorf("checkpoints: %+v", all)
	}
}

// A VM whose memory was saved by virsh, and that is to be stopped, has no checkpoint and no rollback: its
// memory belongs to its disk.
func TestUndoOfASavedVM(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: "one"})
	gatewaytest.Must(t, err)
	r.stop()
	virsh(t, "managedsave", m.ID.String())
	stopped := r.machine(t, m.ID)
	stopped.Desired = gateway.Stopped
	gatewaytest.Must(t, r.records.Save(t.Context(), stopped))
	r.run(t)
	_, err = r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{})
	wantError(t, err, gateway.KindConflict, "lodge start blog")
	_, err = r.host.Rollback(t.Context(), m.ID, "one", false)
	wantError(t, err, gateway.KindConflict, "lodge start blog")
	_, err = r.host.Fork(t.Context(), m.ID, "", gateway.Spec{Name: "twin"}, func(gateway.Progress) {})
	wantError(t, err, gateway.KindConflict, "lodge start blog")
	gatewaytest.Must(t, r.host.Start(t.Context(), m.ID))
	r.press(t, m.ID, "x")
	r.wantLog(t, m.ID, libvirttest.Greeting+"x") // it has booted once
	_, err = r.host.Rollback(t.Context(), m.ID, "one", false)
	gatewaytest.Must(t, err)
}
