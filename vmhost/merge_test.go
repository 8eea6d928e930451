package vmhost_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt/libvirttest"
)

// The layers of a running VM are merged while it runs and writes, also past a daemon that ends in
// between. Its checkpoints keep theirs, and a fork of one of them starts.
func TestMerge(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	r.stop()
	r.config.MergeAt = 5
	r.run(t)
	m := r.make(t, "blog")
	before := pid(t, m.ID)
	var kept gateway.Checkpoint
	for i := range 12 {
		r.press(t, m.ID, libvirttest.KeyWrite)
		c, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{Name: fmt.Sprint(i)})
		gatewaytest.Must(t, err)
		if i == 2 {
			kept = c
			continue
		}
		gatewaytest.Must(t, r.host.RemoveCheckpoint(t.Context(), m.ID, c.ID))
		if i == 4 || i == 7 {
			r.restart(t)
		}
	}
	r.restart(t) // a merge that a checkpoint has interrupted is tried again later, or by the next daemon
	r.waitMerged(t, m.ID, 4)
	for range 140 { // more than a disk can have layers
		_, err := r.host.Checkpoint(t.Context(), m.ID, gateway.CheckpointRequest{})
		gatewaytest.Must(t, err)
	}
	if got := pid(t, m.ID); got != before {
		t.Errorf("QEMU was process %d and is %d now", before, got)
	}
	twin, err := r.host.Fork(t.Context(), m.ID, kept.Name, gateway.Spec{Name: "twin"}, func(gateway.Progress) {})
	gatewaytest.Must(t, err)
	r.waitGreetings(t, twin.ID, 1)
	for _, vm := range []gateway.VM{m, twin} {
		gatewaytest.Must(t, r.host.Stop(t.Context(), vm.ID, true))
		if !r.written(t, vm) {
			t.Errorf("%s has lost what its guest wrote before the merges", vm.Name)
		}
		gatewaytest.Must(t, r.host.Start(t.Context(), vm.ID))
		r.waitGreetings(t, vm.ID, 2)
	}
	gatewaytest.Must(t, r.host.Remove(t.Context(), m.ID))
	gatewaytest.Must(t, r.host.Remove(t.Context(), twin.ID))
	r.wantNothing(t)
}

// waitMerged waits until the running domain has at most this many layers, and the same ones as the
// record.
func (r *rig) waitMerged(t *testing.T, id gateway.ID, layers int) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		blocks := virsh(t, "dumpxml", "--xpath", "//disk[target/@dev='vda']//source/@file", id.String())
		files := strings.Fields(blocks)
		if len(files) > layers {
			return fmt.Errorf("%d layers", len(files))
		}
		if top := string(r.machine(t, id).Disk); len(files) == 0 || filepath.Base(strings.Trim(strings.TrimPrefix(files[0], "file="), `"`)) != top+".qcow2" {
			return errors.New("record and domain differ")
		}
		return nil
	})
}
