package vmhost

import (
	"context"
	"errors"
	"slices"
	"time"

	"lodge/gateway"
	"lodge/vmhost/disk"
	"lodge/vmhost/libvirt"
)

// The disk of a running VM is merged when it has Config.MergeAt layers: QEMU copies what was written
// since the lowest layer into the uppermost one. The layers in between are removed unless a checkpoint or
// a fork needs them. Without merges, scheduled checkpoints would end at maxChain layers.
//
// A merge has no record of its own: each reconcile compares the chain in libvirt with the one on record,
// and takes the next step. The record is shortened only once a further layer lies on the merged one, since
// QEMU flushes a disk when it changes over. Until then, and after a crash at any moment, the longer chain
// on record has the same content.
const (
	mergeMiB    = 100              // a second that QEMU copies at most
	mergePoll   = 2 * time.Second  // until the next look at a merge that is in progress
	mergeRepeat = 10 * time.Minute // until the next try after a merge that failed or was interrupted
	mergeLimit  = time.Minute      // that a checkpoint waits for a merge
	mergeLease  = time.Minute      // after which a VM that is no longer looked at merges no more

	// crowdedChain is the number of layers from which on checkpoints wait for a merge. Below it they
	// interrupt it.
	crowdedChain = maxChain * 3 / 4
)

// errMerging is for a checkpoint that has to wait for a merge.
var errMerging = errors.New("the layers of the disk are being merged")

// merges has the one VM of the host whose disk is merged: more at once would need room for all.
type merges struct {
	vm    gateway.ID
	until time.Time // when the claim lapses unless it is renewed
}

// claimMerge reports whether a VM's disk may be merged now.
func (h *Host) claimMerge(id gateway.ID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); h.merges.vm == id || now.After(h.merges.until) {
		h.merges = merges{id, now.Add(mergeLease)}
		return true
	}
	return false
}

// leaveMerge ends a claim.
func (h *Host) leaveMerge(id gateway.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.merges.vm == id {
		h.merges = merges{}
	}
}

// leaveMerging is for a reconcile that takes no step of a merge: the VM does not run, or is to be stopped. What
// was copied stays.
func (h *Host) leaveMerging(ctx context.Context, w *worker, state libvirt.State) {
	if w.pulling == "" {
		return
	}
	w.pulling = ""
	h.leaveMerge(w.id)
	if hasEnded(state) {
		return
	}
	if err := h.virt.EndPull(ctx, w.id); err != nil {
		h.log.WarnContext(ctx, "merge of a disk was not ended", "vm", h.name(w.id), "err", err)
	}
}

// merge takes the next step of the merge of a running VM's disk, if one is due, and returns the time
// until the one after it; 0: none. A failure is no error: the VM runs from the disk as it is. The
// caller holds the worker's turn.
func (h *Host) merge(ctx context.Context, w *worker) time.Duration {
	m, _ := h.dir.ByID(w.id) // its disk may have changed in this turn
	chain, err := h.layers.Chain(m.Disk)
	early := time.Now().Before(w.nextMerge) && len(chain) < crowdedChain
	if err != nil || len(chain) < h.cfg.MergeAt || early || !h.claimMerge(w.id) {
		w.pulling = ""
		return 0 // a disk without a record has other errors
	}
	again, err := h.mergeStep(ctx, w, m, chain)
	if err != nil {
		w.nextMerge = time.Now().Add(mergeRepeat)
		h.log.WarnContext(ctx, "disk was not merged", "vm", m.Name, "err", err)
	}
	if again == 0 {
		w.pulling = ""
		h.leaveMerge(w.id)
	}
	return again
}

func (h *Host) mergeStep(ctx context.Context, w *worker, m gateway.VM, chain []gateway.Layer) (time.Duration, error) {
	room := disk.CheckRoom(h.cfg.diskDir(), 0)
	switch pulling, err := h.virt.Pulling(ctx, m.ID); {
	case err != nil:
		return 0, err
	case pulling && room != nil:
		return 0, errors.Join(room, h.virt.EndPull(ctx, m.ID))
	case pulling:
		return mergePoll, nil
	}
	top, base := chain[0], chain[len(chain)-1]
	files, err := h.virt.DiskFiles(ctx, m.ID, false)
	switch {
	case err != nil || files[0] != h.layers.Path(top): // the latter: see checkDisk
		return 0, err
	case slices.Equal(files, []string{h.layers.Path(top), h.layers.Path(base)}):
		return 0, h.recordMerge(ctx, m, chain)
	case w.pulling == top.ID && !w.missed: // libvirtd may not have read QEMU's event yet
		w.missed = true
		return mergePoll, nil
	case w.pulling == top.ID:
		return 0, errors.New("QEMU has ended the merge early: see its log")
	}
	var need int64
	for _, l := range chain[1 : len(chain)-1] {
		need += disk.Occupied(h.layers.Path(l))
	}
	if err := disk.CheckRoom(h.cfg.diskDir(), need); err != nil {
		return 0, err
	}
	h.log.InfoContext(ctx, "disk is being merged", "vm", m.Name)
	w.pulling, w.missed = top.ID, false
	return mergePoll, h.virt.Pull(ctx, m.ID, h.layers.Path(base), mergeMiB)
}

// recordMerge has the VM write to a further layer, and records that nothing but the lowest layer is below
// the merged one.
func (h *Host) recordMerge(ctx context.Context, m gateway.VM, chain []gateway.Layer) error {
	top, base := chain[0], chain[len(chain)-1]
	pivot := func(path string) error { return h.virt.Pivot(ctx, m.ID, path, false) }
	if _, err := h.layers.Push(ctx, m.ID, pivot, isRefused); err != nil {
		return err
	}
	h.at("pushed")
	if err := h.layers.Shorten(ctx, top.ID, base.ID); err != nil {
		return err
	}
	h.at("shortened")
	h.log.InfoContext(ctx, "disk was merged", "vm", m.Name)
	// libvirtd has revoked QEMU's access to the layers that the domain no longer uses. Forks use them.
	for _, l := range chain[:len(chain)-1] {
		if err := libvirt.Seal(h.layers.Path(l)); err != nil { // the next start tries again
			h.log.WarnContext(ctx, "layer was not sealed", "vm", m.Name, "path", l.File, "err", err)
		}
	}
	return h.sweepLayers(ctx, gateway.ID{})
}

func isRefused(err error) bool { return errors.Is(err, libvirt.ErrRefused) }

// interruptMerge ends a merge of a running VM's disk, since QEMU refuses to change it over meanwhile. What
// was copied stays in the layer. It fails with errMerging for a checkpoint that has to wait: a scheduled
// one, and any when the disk is close to maxChain. A rollback waits for nothing.
func (h *Host) interruptMerge(ctx context.Context, id gateway.ID, kind gateway.CheckpointKind, layers int) error {
	if layers < h.cfg.MergeAt {
		return nil
	}
	w := h.worker(id)
	pulling, err := h.virt.Pulling(ctx, id)
	switch {
	case err != nil:
		return err
	case kind == gateway.CheckpointUndo && !pulling:
		return nil
	case kind == gateway.CheckpointUndo: // it does not wait
	case w.pulling != "" && !pulling, layers >= maxChain && time.Now().After(w.nextMerge): // to be recorded, or due
		return errMerging
	case !pulling:
		return nil
	case kind == gateway.CheckpointScheduled, layers >= crowdedChain:
		return errMerging
	}
	w.nextMerge, w.pulling = time.Now().Add(mergeRepeat), ""
	h.leaveMerge(id)
	return h.virt.EndPull(ctx, id)
}

// pastMerge calls f again for as long as it fails with errMerging, for mergeLimit at most. Between the
// calls others take their turn, so the merge makes progress.
func (h *Host) pastMerge(ctx context.Context, id gateway.ID, f func() error) error {
	wait := time.NewTicker(pollEvery)
	defer wait.Stop()
	for begun := time.Now(); ; {
		err := f()
		if !errors.Is(err, errMerging) {
			return err
		}
		h.worker(id).wake()
		if time.Since(begun) > mergeLimit {
			return gateway.Errorf(gateway.KindUnavailable, "the layers of the VM's disk are being merged").
				WithHint("Try again in a minute. If the merge fails, see the log of lodged for the cause; lodge restart merges them too.").Because(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
		}
	}
}

// endMerge ends the merge that is in progress when the daemon ends: libvirtd saves no guest meanwhile.
func (h *Host) endMerge(ctx context.Context) {
	h.mu.Lock()
	id := h.merges.vm
	h.mu.Unlock()
	if id == (gateway.ID{}) {
		return
	}
	if pulling, err := h.virt.Pulling(ctx, id); err != nil || !pulling {
		return // libvirtd may have ended before
	}
	if err := h.virt.EndPull(ctx, id); err != nil {
		h.log.WarnContext(ctx, "merge of a disk was not ended", "vm", h.name(id), "err", err)
	}
}
