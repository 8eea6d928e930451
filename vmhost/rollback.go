package vmhost

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lodge/gateway"
	"lodge/vmhost/checkpoint"
	"lodge/vmhost/libvirt"
)

// Rollback gives a VM the state of a checkpoint: disk, Parts and shares, all of them. The empty name is
// the newest checkpoint that no rollback has made. It first makes a checkpoint of the present state,
// which it returns. The VM is ended at once, and started again if it is to run.
//
// Until all is prepared, an error leaves the VM as it is. From then on the rollback is recorded, and is
// finished by the worker or by the next daemon, whatever happens. From inside the VM it returns at that
// moment, and the shares stay. KindConflict: another rollback is in progress, or the state of the VM
// does not allow one.
func (h *Host) Rollback(ctx context.Context, id gateway.ID, name string, inside bool) (undo gateway.Checkpoint, err error) {
	w, err := h.begin(ctx, id)
	if err != nil {
		return undo, err
	}
	if !w.rolling.CompareAndSwap(false, true) {
		return undo, errRolling()
	}
	defer w.rolling.Store(false)
	err = w.exclusively(ctx, func() error {
		m, state, err := h.atRest(ctx, id)
		if err != nil {
			return err
		}
		if undo, err = h.beginRollback(ctx, m, state, name, inside); err != nil || inside {
			return err
		}
		return h.finishRollback(context.WithoutCancel(ctx), w)
	})
	if inside {
		w.wake() // the worker finishes it
	}
	return undo, err
}

func errRolling() error {
	return gateway.Errorf(gateway.KindConflict, "a rollback of the VM is in progress").WithHint("lodge ls shows when the VM runs again.")
}

// beginRollback prepares and records a rollback. The caller holds the worker's turn.
func (h *Host) beginRollback(ctx context.Context, m gateway.VM, state libvirt.State, name string, inside bool) (undo gateway.Checkpoint, err error) {
	if m.Rollback != nil {
		return undo, errRolling()
	}
	to, err := h.checkpoints.Find(m.ID, name)
	if err != nil {
		return undo, err
	}
	if err := h.checkMarks(ctx, to); err != nil {
		return undo, err
	}
	if err := h.checkCheckpoint(ctx, m, state, gateway.CheckpointUndo); err != nil {
		return undo, err
	}
	below, err := h.layers.Get(to.Layer)
	if err != nil {
		return undo, err
	}
	l, err := h.layers.Reserve(ctx, below, m.ID, int64(m.DiskGiB)<<30)
	if err != nil {
		return undo, err
	}
	if err = h.layers.Make(ctx, l.ID, false); err == nil {
		undo, err = h.checkpoint(ctx, m, state, gateway.CheckpointRequest{Kind: gateway.CheckpointUndo})
	}
	if err == nil {
		h.at("prepared")
		err = h.recordRollback(ctx, to, l.ID, inside)
	}
	if err != nil {
		return gateway.Checkpoint{}, errors.Join(explainFull(err, h.cfg.diskDir()), h.layers.Remove(context.WithoutCancel(ctx), l.ID))
	}
	h.at("intent")
	return undo, nil
}

// checkMarks checks that every Part can go back to a checkpoint.
func (h *Host) checkMarks(ctx context.Context, c gateway.Checkpoint) error {
	for _, part := range h.cfg.Parts {
		marks, err := part.Marks(ctx, c.VM)
		if err != nil {
			return fmt.Errorf("read marks: %w", err)
		}
		if !slices.Contains(marks, c.ID) {
			return gateway.Errorf(gateway.KindConflict, "the checkpoint %s has no mail or no objects", c.Name).
				WithHint("It was damaged, or made by an earlier version of Lodge. Choose another: lodge checkpoints VM")
		}
	}
	return nil
}

// recordRollback records that a rollback has begun. No sweep takes its layer in between.
func (h *Host) recordRollback(ctx context.Context, to gateway.Checkpoint, layer gateway.LayerID, inside bool) error {
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	if err := h.layers.Done(ctx, layer); err != nil {
		return err
	}
	_, err := h.record(ctx, to.VM, func(m *gateway.VM) {
		shares, buckets := m.Shares, m.S3.Shares
		if !inside {
			shares, buckets = checkpoint.Restored(*m, to.Shares), checkpoint.RestoredBuckets(*m, to.BucketShares)
		}
		m.Rollback = &gateway.Rollback{To: to.ID, Disk: layer, Shares: shares, BucketShares: buckets, ShareRev: m.ShareRev}
	})
	return err
}

// finishRollback finishes the rollback of a VM, if one has begun. Each of its steps may be repeated. The
// caller holds the worker's turn.
func (h *Host) finishRollback(ctx context.Context, w *worker) error {
	m, ok := h.dir.ByID(w.id)
	if !ok || m.Rollback == nil || m.Desired == gateway.Removed {
		return nil
	}
	if err := h.virt.Kill(ctx, w.id); err != nil {
		return err
	}
	if err := h.virt.Undefine(ctx, w.id); err != nil {
		return err
	}
	if err := h.rewind(ctx, m); err != nil {
		return err
	}
	h.log.InfoContext(ctx, "VM was rolled back", "vm", m.Name)
	if err := h.sweepLayers(ctx, gateway.ID{}); err != nil { // the next sweep tries again
		h.log.WarnContext(ctx, "layers were not removed", "vm", m.Name, "err", err)
	}
	if !h.wants(w.id, gateway.Running) {
		return nil
	}
	w.pace = pace{}
	if err := h.startRolledBack(ctx, w, m.Rollback.To); err != nil {
		return fmt.Errorf("start after the rollback, which is complete: %w", err)
	}
	return nil
}

// startRolledBack starts a VM from the memory of the checkpoint that it went back to, if that has some,
// or boots it.
func (h *Host) startRolledBack(ctx context.Context, w *worker, to gateway.CheckpointID) error {
	if c, err := h.checkpoints.Find(w.id, string(to)); err == nil && c.Memory != "" {
		err := h.resumeSaved(ctx, w, c)
		if err == nil || !h.wants(w.id, gateway.Running) {
			return err
		}
		// libvirtd may not have answered: the guest may run, and write to this disk.
		if state, unknown := h.virt.State(ctx, w.id); unknown != nil || !hasEnded(state) {
			return errors.Join(err, unknown)
		}
		h.log.WarnContext(ctx, "VM boots, since the memory of the checkpoint could not be resumed", "vm", h.name(w.id), "err", err)
	}
	return h.bringUp(ctx, w)
}

// rewind gives the Parts, the disk and the shares of a VM that is off their state of the checkpoint.
func (h *Host) rewind(ctx context.Context, m gateway.VM) error {
	r := *m.Rollback
	for _, part := range h.cfg.Parts {
		if err := part.Rewind(ctx, m.ID, r.To); err != nil {
			return fmt.Errorf("go back to the checkpoint: %w", err)
		}
		h.at("rewound")
	}
	_, err := h.record(ctx, m.ID, func(m *gateway.VM) {
		if m.ShareRev == r.ShareRev { // else somebody has closed or opened something since
			m.Shares, m.S3.Shares = r.Shares, r.BucketShares
		}
		m.Disk, m.Rollback = r.Disk, nil
		m.ShareRev++
		m.Restarting, m.ForceStop = false, false
	})
	h.at("rolled back")
	return err
}
