package vmhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt"
)

// A rollback restores all that the checkpoint covers, and can be undone.
func TestRollback(t *testing.T) {
	r := newUndoRig(t)
	one, err := r.checkpoint(t, gateway.CheckpointRequest{Name: "one", Kind: gateway.CheckpointAsked})
	gatewaytest.Must(t, err)
	r.change(t, 2)
	before := r.vm(t)
	gatewaytest.Must(t, r.rollback(t, "", false))
	m := r.vm(t)
	if diff := cmp.Diff([]int{1, 1, 1}, r.states(t)); diff != "" || m.ShareRev == before.ShareRev || m.Rollback != nil {
		t.Errorf("%+v, -want +got:\n%s", m, diff)
	}
	if parent(t, r.h, m) != string(one.Layer) || one.Layer != "first" {
		t.Errorf("the disk is over %s, not over %s", parent(t, r.h, m), one.Layer)
	}
	r.checkRests(t)
	undo := r.h.checkpoints.Of(r.blog.ID)[1]
	if undo.Kind != gateway.CheckpointUndo || undo.Layer != before.Disk {
		t.Errorf("the checkpoint of the rollback: %+v", undo)
	}
	gatewaytest.Must(t, r.rollback(t, undo.Name, false))
	if diff := cmp.Diff([]int{2, 2, 2}, r.states(t)); diff != "" || parent(t, r.h, r.vm(t)) != string(undo.Layer) {
		t.Errorf("undone, -want +got:\n%s", diff)
	}
	gatewaytest.Must(t, r.rollback(t, "", true)) // the newest that no rollback has made
	if diff := cmp.Diff([]int{1, 1, 2}, r.states(t)); diff != "" {
		t.Errorf("from inside the shares stay, -want +got:\n%s", diff)
	}
	r.checkRests(t)
	for _, c := range r.h.checkpoints.Of(r.blog.ID) {
		gatewaytest.Must(t, r.h.removeCheckpoint(t.Context(), c))
		r.checkRests(t)
	}
}

// What does not allow a checkpoint or a rollback leaves everything as it is.
func TestCheckpointRefused(t *testing.T) {
	r := newUndoRig(t)
	_, err := r.checkpoint(t, gateway.CheckpointRequest{Name: "one"})
	gatewaytest.Must(t, err)
	r.change(t, 2)
	was := r.vm(t)
	mangle := func(change func(*gateway.VM)) gateway.VM {
		m := was
		change(&m)
		return m
	}
	for name, row := range map[string]struct {
		vm    gateway.VM
		state libvirt.State
		name  string
		want  gateway.Kind
	}{
		"name in use":     {was, libvirt.Absent, "one", gateway.KindTaken},
		"name with slash": {was, libvirt.Absent, "a/b", gateway.KindInvalid},
		"saved":           {was, libvirt.Saved, "", gateway.KindConflict},
		"migrated":        {was, libvirt.Migrated, "", gateway.KindConflict},
		"was migrated":    {mangle(func(m *gateway.VM) { m.Migrated = true }), libvirt.Off, "", gateway.KindConflict},
		"being made":      {mangle(func(m *gateway.VM) { m.Ready = false }), libvirt.Absent, "", gateway.KindConflict},
		"being removed":   {mangle(func(m *gateway.VM) { m.Desired = gateway.Removed }), libvirt.Absent, "", gateway.KindNotFound},
		"no libvirtd":     {was, libvirt.Running, "", gateway.KindUnavailable},
	} {
		if _, err := r.h.checkpoint(t.Context(), row.vm, row.state, gateway.CheckpointRequest{Name: row.name}); gateway.KindOf(err) != row.want {
			t.Errorf("%s: %v", name, err)
		}
		if row.name == "" && row.want != gateway.KindUnavailable {
			if _, err := r.h.beginRollback(t.Context(), row.vm, row.state, "one", false); gateway.KindOf(err) != row.want {
				t.Errorf("rollback, %s: %v", name, err)
			}
		}
		r.restart(t) // the layer that libvirtd may still change over to
	}
	r.parts[1].fail = gateway.Errorf(gateway.KindUnavailable, "busy")
	if _, err := r.checkpoint(t, gateway.CheckpointRequest{}); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("a part without a mark: %v", err)
	}
	if err := r.rollback(t, "one", false); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("rollback: %v", err)
	}
	r.parts[1].fail = nil
	slow, cancel := context.WithCancel(t.Context())
	r.parts[1].slow = cancel // as when holdLimit has passed
	if _, err := r.h.checkpoint(slow, r.vm(t), libvirt.Absent, gateway.CheckpointRequest{}); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("marks that took longer than the hold: %v", err)
	}
	r.parts[1].slow = nil
	if err := r.rollback(t, "two", false); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("no such checkpoint: %v", err)
	}
	rolling := mangle(func(m *gateway.VM) { m.Rollback = &gateway.Rollback{} })
	if _, err := r.h.beginRollback(t.Context(), rolling, libvirt.Absent, "one", false); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("two at once: %v", err)
	}
	r.h.worker(r.blog.ID).rolling.Store(true)
	if _, err := r.h.Rollback(t.Context(), r.blog.ID, "one", false); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a second while the first is prepared: %v", err)
	}
	if diff := cmp.Diff([]int{2, 2, 2}, r.states(t)); diff != "" || len(r.h.checkpoints.Of(r.blog.ID)) != 1 {
		t.Errorf("%v, -want +got:\n%s", r.h.checkpoints.Of(r.blog.ID), diff)
	}
	r.checkRests(t)
	delete(r.parts[0].marks[r.blog.ID], r.h.checkpoints.Of(r.blog.ID)[0].ID)
	if err := r.rollback(t, "one", false); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a mark is missing: %v", err)
	}
}

// After a kill at any step there is a whole checkpoint or none.
func TestCheckpointSurvivesKills(t *testing.T) {
	for n, point := 0, "begin"; point != ""; n++ {
		r := newUndoRig(t)
		point = r.crashAt(t, n, func() error {
			_, err := r.checkpoint(t, gateway.CheckpointRequest{Name: "one"})
			return err
		})
		r.checkRests(t)
		complete := len(r.h.checkpoints.Of(r.blog.ID)) == 1
		if want := point == "complete" || point == ""; complete != want {
			t.Errorf("killed at %q: complete is %v", point, complete)
		}
		if _, err := r.checkpoint(t, gateway.CheckpointRequest{Name: "two"}); err != nil {
			t.Errorf("killed at %q, the next: %v", point, err)
		}
		for _, c := range r.h.checkpoints.Of(r.blog.ID) {
			r.crashAt(t, 0, func() error { return r.h.removeCheckpoint(t.Context(), c) })
			r.checkRests(t)
		}
	}
}

// After a kill at any step of a rollback the VM has the old state or that of the checkpoint.
func TestRollbackSurvivesKills(t *testing.T) {
	var points []string
	for n, point := 0, "begin"; point != ""; n++ {
		r := newUndoRig(t)
		_, err := r.checkpoint(t, gateway.CheckpointRequest{Name: "one"})
		gatewaytest.Must(t, err)
		r.change(t, 2)
		point = r.crashAt(t, n, func() error { return r.rollback(t, "one", false) })
		points = append(points, point)
		r.checkRests(t)
		want := []int{1, 1, 1}
		if begun := strings.Contains(" intent rewound rolled back ", " "+point) || point == ""; !begun {
			want = []int{2, 2, 2}
		}
		onOne := parent(t, r.h, r.vm(t)) == "first" && len(r.h.checkpoints.Of(r.blog.ID)) > 1
		if diff := cmp.Diff(want, r.states(t)); diff != "" || onOne != (want[0] == 1) {
			t.Errorf("killed at %q: the disk is that of the checkpoint: %v, -want +got:\n%s", point, onOne, diff)
		}
	}
	if want := []string{"marked", "pushed", "complete", "prepared", "intent", "rewound", "rewound", "rolled back", ""}; !cmp.Equal(want, points) {
		t.Errorf("points: %q", points)
	}
}

// A fork has an own record, seed and disk over that of the checkpoint, and outlives its parent.
func TestForkOutlivesItsParent(t *testing.T) {
	r := newUndoRig(t)
	one, err := r.checkpoint(t, gateway.CheckpointRequest{Name: "one"})
	gatewaytest.Must(t, err)
	r.change(t, 2)
	guest, err := r.h.recordFork(t.Context(), r.blog.ID, one, gateway.Spec{Name: "twin", Grants: []gateway.Grant{{To: 7, Level: gateway.Manage}}})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, r.h.makeFork(t.Context(), guest, r.blog.ID, one))
	gatewaytest.Must(t, r.h.setReady(t.Context(), guest.VM.ID))
	twin, _ := r.h.dir.ByName("twin")
	if twin.ID == r.blog.ID || twin.Number == r.vm(t).Number || twin.HostKey == "" || len(twin.Shares) != 0 || len(twin.Grants) != 1 || twin.DiskGiB != 1 {
		t.Errorf("the fork is %+v", twin)
	}
	if parent(t, r.h, twin) != string(one.Layer) || r.parts[0].now[twin.ID] != 1 {
		t.Errorf("its disk is over %s, its part has %d", parent(t, r.h, twin), r.parts[0].now[twin.ID])
	}
	if _, err := r.h.recordFork(t.Context(), r.blog.ID, one, gateway.Spec{Name: "twin"}); gateway.KindOf(err) != gateway.KindTaken {
		t.Errorf("a name in use: %v", err)
	}
	gatewaytest.Must(t, r.h.removeCheckpoint(t.Context(), one))
	gatewaytest.Must(t, errors.Join(r.h.dropCheckpoints(t.Context(), r.blog.ID), r.h.sweepLayers(t.Context(), r.blog.ID), r.h.layers.Leave(t.Context(), r.blog.ID)))
	gatewaytest.Must(t, r.h.dir.Delete(t.Context(), r.blog.ID))
	r.restart(t)
	chain, err := r.h.layers.Chain(twin.Disk)
	gatewaytest.Must(t, err)
	for _, l := range chain {
		if _, err := os.Stat(r.h.layers.Path(l)); err != nil {
			t.Error(err)
		}
	}
	if len(chain) != 2 || len(r.h.layers.All()) != 2 {
		t.Errorf("chain %v of %v", chain, r.h.layers.All())
	}
	gatewaytest.Must(t, r.h.sweepLayers(t.Context(), twin.ID))
	if left := r.h.layers.All(); len(left) != 0 {
		t.Errorf("layers without a VM: %v", left)
	}
}

// A fork that was not finished is nothing after a restart, and neither is the checkpoint made for it.
func TestForkSurvivesKills(t *testing.T) {
	r := newUndoRig(t)
	r.crashAt(t, 3, func() error { // "marked", "pushed" and "complete" are those of the checkpoint
		c, err := r.checkpoint(t, gateway.CheckpointRequest{Kind: gateway.CheckpointFork})
		if err != nil {
			return err
		}
		_, err = r.h.recordFork(t.Context(), r.blog.ID, c, gateway.Spec{Name: "twin"})
		return err
	})
	if len(r.h.checkpoints.Of(r.blog.ID)) != 0 {
		t.Errorf("checkpoints: %v", r.h.checkpoints.Of(r.blog.ID))
	}
	gatewaytest.Must(t, r.h.giveUpHalfMade(t.Context()))
	if twin, ok := r.h.dir.ByName("twin"); ok {
		t.Errorf("left: %+v", twin)
	}
}

// A disk of many layers becomes one at a start; its checkpoints stay.
func TestDeepDiskIsFlattened(t *testing.T) {
	r := newUndoRig(t)
	gatewaytest.Must(t, os.Truncate(r.h.cfg.diskDir()+"/first.img", 1<<20))
	for i := range 16 {
		r.h.flattenDeep(t.Context(), r.blog.ID)
		if chain, err := r.h.layers.Chain(r.vm(t).Disk); err != nil || len(chain) != i+1 {
			t.Fatalf("%d checkpoints: %d layers, %v", i, len(chain), err)
		}
		if i < 15 {
			_, err := r.checkpoint(t, gateway.CheckpointRequest{Name: fmt.Sprint("c", i)})
			gatewaytest.Must(t, err)
		}
		if i == 14 {
			break
		}
	}
	r.h.flattenDeep(t.Context(), r.blog.ID)
	if chain, err := r.h.layers.Chain(r.vm(t).Disk); err != nil || len(chain) != 1 {
		t.Errorf("%d layers, %v", len(chain), err)
	}
	r.checkRests(t)
	gatewaytest.Must(t, r.rollback(t, "c3", false))
	r.checkRests(t)
}

// Scheduled checkpoints are made of VMs that run, and expire.
func TestSchedule(t *testing.T) {
	r := newUndoRig(t)
	for range 3 {
		_, err := r.checkpoint(t, gateway.CheckpointRequest{Kind: gateway.CheckpointScheduled})
		gatewaytest.Must(t, err)
	}
	_, err := r.checkpoint(t, gateway.CheckpointRequest{Name: "mine", Kind: gateway.CheckpointAsked})
	gatewaytest.Must(t, err)
	m := r.vm(t)
	m.CheckpointPlan = gateway.CheckpointPlan{Every: time.Hour, Keep: 1}
	newest := r.h.checkpoints.Of(m.ID)[2].Name
	gatewaytest.Must(t, r.h.keepSchedule(t.Context(), m, time.Now().Add(2*time.Hour))) // it is off
	if left := r.h.checkpoints.Of(m.ID); len(left) != 2 || left[0].Name != newest || left[1].Name != "mine" {
		t.Errorf("left: %v", left)
	}
	r.checkRests(t)
	m.Desired = gateway.Running
	if err := r.h.keepSchedule(t.Context(), m, time.Now().Add(2*time.Hour)); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("due, without libvirtd: %v", err)
	}
}
