package vmhost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lodge/gateway"
	"lodge/gateway/hold"
	"lodge/vmhost/disk"
	"lodge/vmhost/libvirt"
)

// maxChain is how many layers the disk of a VM may have. libvirt allows 200. A running VM's are merged
// long before (Config.MergeAt), and a start flattens the disk (layers.FlattenAt).
const maxChain = 128

// holdLimit is how long a checkpoint holds back what the VM and others write to its mailbox and buckets: from before
// the first mark until the disk has changed over, else the checkpoint fails. It is clearly shorter than the time after
// which a hold ends by itself, so a complete checkpoint was held from its first mark to its disk.
const holdLimit = hold.DefaultLimit * 2 / 3

// Checkpoint records the state of a VM, which may run meanwhile: its disk as after a loss of power,
// unless r.Quiesce, its Parts and its shares. It is complete when Checkpoint returns nil; otherwise there
// is none. Errors: KindTaken, KindInvalid for the name; KindConflict for a state of the VM without a
// checkpoint; KindNoSpace.
func (h *Host) Checkpoint(ctx context.Context, id gateway.ID, r gateway.CheckpointRequest) (c gateway.Checkpoint, err error) {
	w, err := h.begin(ctx, id)
	if err != nil {
		return c, err
	}
	if r.Kind == gateway.CheckpointInside {
		if !w.inside.CompareAndSwap(false, true) {
			return c, gateway.Errorf(gateway.KindUnavailable, "another checkpoint of the VM's own is being made").WithHint("Try again in a moment.")
		}
		defer w.inside.Store(false)
	}
	record := func(*worker) error {
		m, state, err := h.atRest(ctx, id)
		if err == nil {
			c, err = h.checkpoint(ctx, m, state, r)
		}
		return err
	}
	if r.Kind == gateway.CheckpointScheduled {
		err = h.exclusively(ctx, id, record)
	} else {
		err = h.pastMerge(ctx, id, func() error { return h.exclusively(ctx, id, record) })
	}
	w.wake() // the disk may have to be merged
	return c, err
}

// atRest returns a VM, whose disk has no change under way, with the state of its domain. The caller
// holds the worker's turn.
func (h *Host) atRest(ctx context.Context, id gateway.ID) (gateway.VM, libvirt.State, error) {
	state, err := h.virt.State(ctx, id)
	if err == nil {
		err = h.settleDisk(ctx, id, state)
	}
	if err == nil {
		err = h.checkDisk(ctx, id)
	}
	m, ok := h.dir.ByID(id)
	if err == nil && !ok {
		err = errGone()
	}
	return m, state, err
}

// checkpoint makes a checkpoint of a settled VM. The caller holds the worker's turn.
func (h *Host) checkpoint(ctx context.Context, m gateway.VM, state libvirt.State, r gateway.CheckpointRequest) (gateway.Checkpoint, error) {
	name, err := h.checkpoints.Check(m.ID, r, time.Now())
	if err != nil {
		return gateway.Checkpoint{}, err
	}
	memory := ""
	if r.Memory {
		if memory, err = h.checkMemory(ctx, m, state); err != nil {
			return gateway.Checkpoint{}, err
		}
	}
	if err := h.checkCheckpoint(ctx, m, state, r.Kind); err != nil {
		return gateway.Checkpoint{}, err
	}
	c := gateway.Checkpoint{
		ID: gateway.CheckpointID(gateway.NewID().String()), VM: m.ID, Name: name, Kind: r.Kind, Layer: m.Disk,
		Quiesced: r.Quiesce && !hasEnded(state), Memory: memory, Shares: m.Shares, BucketShares: m.S3.Shares, Created: time.Now().UTC().Truncate(time.Second),
	}
	begun := time.Now()
	err = h.push(ctx, m, state, c)
	if err == nil {
		err = h.syncMemory(c)
	}
	if err == nil {
		err = h.checkpoints.Add(context.WithoutCancel(ctx), c)
	}
	if err != nil {
		return gateway.Checkpoint{}, errors.Join(explainFull(err, h.cfg.diskDir()), h.dropMarks(context.WithoutCancel(ctx), m.ID, c.ID), h.dropMemory(c.ID))
	}
	h.at("complete")
	h.log.InfoContext(ctx, "checkpoint was made", "vm", m.Name, "checkpoint", c.Name, "duration", time.Since(begun))
	return c, nil
}

// checkCheckpoint checks that a VM can have a checkpoint made in this state. It ends a merge of the disk,
// or fails with errMerging.
func (h *Host) checkCheckpoint(ctx context.Context, m gateway.VM, state libvirt.State, kind gateway.CheckpointKind) error {
	switch {
	case m.Desired == gateway.Removed:
		return errGone()
	case !m.Ready:
		return gateway.Errorf(gateway.KindConflict, "%s is being made", m.Name).WithHint("Try again once it runs: lodge wait %s", m.Name)
	case state == libvirt.Saved:
		return gateway.Errorf(gateway.KindConflict, "the memory of %s is saved, and belongs to its disk as it is", m.Name).
			WithHint("Start it first: lodge start %s", m.Name)
	case state == libvirt.Migrated || m.Migrated:
		return errMigrated(m.Name)
	}
	chain, err := h.layers.Chain(m.Disk)
	if err != nil {
		return err
	}
	if err := disk.CheckRoom(h.cfg.diskDir(), 0); err != nil {
		return err
	}
	if !hasEnded(state) { // the last check: what is refused ends no merge
		if err := h.interruptMerge(ctx, m.ID, kind, len(chain)); err != nil {
			return err
		}
	}
	if len(chain) >= maxChain {
		return gateway.Errorf(gateway.KindConflict, "the disk of %s has %d layers", m.Name, len(chain)).
			WithHint("A start merges them: lodge restart %s", m.Name)
	}
	return nil
}

// push puts a new layer on the disk, and marks the Parts in the same moment.
func (h *Host) push(ctx context.Context, m gateway.VM, state libvirt.State, c gateway.Checkpoint) error {
	release := func() {}
	defer func() { release() }()
	pivot := func(path string) (err error) {
		ctx, cancel := context.WithTimeout(ctx, holdLimit)
		defer cancel()
		if release, err = h.mark(ctx, m.ID, c.ID); err != nil {
			return errors.Join(err, libvirt.ErrRefused)
		}
		h.at("marked")
		if err := ctx.Err(); err != nil {
			return errors.Join(errSlowMarks(err), libvirt.ErrRefused)
		}
		if hasEnded(state) {
			return nil
		}
		if c.Memory != "" {
			return h.pivotWithMemory(ctx, c, path)
		}
		return h.virt.Pivot(ctx, m.ID, path, c.Quiesced)
	}
	_, err := h.layers.Push(ctx, m.ID, pivot, isRefused)
	h.at("pushed")
	if below, missing := h.layers.Get(c.Layer); err == nil && missing == nil {
		if err := libvirt.Seal(h.layers.Path(below)); err != nil { // the next start tries again
			h.log.WarnContext(ctx, "layer was not sealed", "vm", m.Name, "path", below.File, "err", err)
		}
	}
	return err
}

func errSlowMarks(err error) error {
	return gateway.Errorf(gateway.KindUnavailable, "the mailbox and the buckets took more than %s to be marked", holdLimit).
		WithHint("Try again when the host's disk is less busy.").Because(err)
}

// mark marks all Parts, or none but for marks that dropMarks removes. After an error nothing is held
// back.
func (h *Host) mark(ctx context.Context, vm gateway.ID, id gateway.CheckpointID) (release func(), err error) {
	var held []func()
	release = func() {
		for _, f := range slices.Backward(held) {
			f()
		}
		held = nil
	}
	for _, part := range h.cfg.Parts {
		f, err := part.Mark(ctx, vm, id)
		if err != nil {
			release()
			return func() {}, fmt.Errorf("mark for checkpoint: %w", err)
		}
		held = append(held, f)
	}
	return release, nil
}

// dropMarks removes the marks of one checkpoint.
func (h *Host) dropMarks(ctx context.Context, vm gateway.ID, id gateway.CheckpointID) error {
	var errs []error
	for _, part := range h.cfg.Parts {
		errs = append(errs, part.Drop(ctx, vm, id))
	}
	return errors.Join(errs...)
}

// Checkpoints returns the checkpoints of a VM, in the order of their making, and how many bytes each of
// them takes: what was written to the disk since the one before, and the memory.
func (h *Host) Checkpoints(id gateway.ID) ([]gateway.Checkpoint, []int64) {
	all := h.checkpoints.Of(id)
	bytes := make([]int64, len(all))
	for i, c := range all {
		if l, err := h.layers.Get(c.Layer); err == nil {
			bytes[i] = disk.Occupied(h.layers.Path(l))
		}
		if c.Memory != "" {
			bytes[i] += disk.Occupied(h.cfg.savedFile(c.ID))
		}
	}
	return all, bytes
}

// RemoveCheckpoint removes a checkpoint, by its id. Forks of it stay. A missing one is no error.
func (h *Host) RemoveCheckpoint(ctx context.Context, id gateway.ID, which gateway.CheckpointID) error {
	return h.exclusively(ctx, id, func(*worker) error {
		c, err := h.checkpoints.Find(id, string(which))
		if gateway.KindOf(err) == gateway.KindNotFound {
			return nil
		}
		return h.removeCheckpoint(ctx, c)
	})
}

// removeCheckpoint removes a checkpoint. The record goes first: the next start removes what a crash
// leaves. The caller holds the worker's turn.
func (h *Host) removeCheckpoint(ctx context.Context, c gateway.Checkpoint) error {
	if err := h.checkpoints.Remove(ctx, c); err != nil {
		return err
	}
	h.at("unrecorded")
	return errors.Join(h.dropExamined(c.ID), h.dropMemory(c.ID), h.dropMarks(ctx, c.VM, c.ID), h.sweepLayers(ctx, gateway.ID{}))
}

// dropCheckpoints removes all checkpoints of a VM that is being removed.
func (h *Host) dropCheckpoints(ctx context.Context, id gateway.ID) error {
	for _, c := range h.checkpoints.Of(id) {
		if err := errors.Join(h.dropExamined(c.ID), h.dropMemory(c.ID), h.checkpoints.Remove(ctx, c)); err != nil {
			return err
		}
	}
	return h.dropHalfMarks(ctx, id)
}

// recoverCheckpoints removes what a crash has left of checkpoints that were not complete, and those that
// were made for a fork.
func (h *Host) recoverCheckpoints(ctx context.Context) {
	if err := h.sweepMemory(); err != nil {
		h.log.ErrorContext(ctx, "memory of checkpoints was not removed", "err", err) // the next start tries again
	}
	for _, m := range h.dir.All() {
		var errs []error
		for _, c := range h.checkpoints.Of(m.ID) {
			if c.Kind == gateway.CheckpointFork {
				errs = append(errs, h.checkpoints.Remove(ctx, c))
			}
		}
		errs = append(errs, h.dropHalfMarks(ctx, m.ID))
		if err := errors.Join(errs...); err != nil {
			h.log.ErrorContext(ctx, "rests of checkpoints were not removed", "vm", m.Name, "err", err) // the next start tries again
		}
	}
}

// dropHalfMarks removes a VM's marks of which no checkpoint is recorded.
func (h *Host) dropHalfMarks(ctx context.Context, id gateway.ID) error {
	complete := map[gateway.CheckpointID]bool{}
	for _, c := range h.checkpoints.Of(id) {
		complete[c.ID] = true
	}
	var errs []error
	for _, part := range h.cfg.Parts {
		marks, err := part.Marks(ctx, id)
		errs = append(errs, err)
		for _, mark := range marks {
			if !complete[mark] {
				errs = append(errs, part.Drop(ctx, id, mark))
			}
		}
	}
	return errors.Join(errs...)
}
