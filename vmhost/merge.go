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

// The disk of a running VM is merged when it has Config.MergeAt layers: QEMU copies what was written since
// the lowest layer into the uppermost one, and the layers in between go unless a checkpoint or a fork
// needs them. So a VM that runs for years has its scheduled checkpoints.
//
// The merge needs no record of its own: each reconcile compares the chain in libvirt with the one on
// record, and takes the next step. The record is shortened only once a further layer lies on the
// merged one, since QEMU flushes a disk when it changes over. Until then, and after a crash at any
// moment, the longer chain on record has the same content.
const (
	mergeMiB    = 100              // a second that QEMU copies at most
	mergePoll   = 2 * time.Second  // until the next look at a merge that is in progress
	mergeWait   = 2 * time.Second  // that a checkpoint waits for one: most are short
	mergeRepeat = 10 * time.Minute // until the next try after one that failed
)

// merge takes the next step of the merge of a running VM's disk, if one is due, and returns the time
// until the one after it; 0: none. A failure is no error: the VM runs from the disk as it is. The
// caller holds the worker's turn.
func (h *Host) merge(ctx context.Context, w *worker) time.Duration {
	m, _ := h.dir.ByID(w.id) // its disk may have changed in this turn
	chain, err := h.layers.Chain(m.Disk)
	if err == nil && (len(chain) < h.cfg.MergeAt || time.Now().Before(w.nextMerge)) {
		return 0
	}
	again := time.Duration(0)
	if err == nil {
		again, err = h.mergeStep(ctx, m, chain)
	}
	if err != nil {
		w.nextMerge = time.Now().Add(mergeRepeat)
		h.log.WarnContext(ctx, "disk was not merged", "vm", m.Name, "err", err)
	}
	return again
}

func (h *Host) mergeStep(ctx context.Context, m gateway.VM, chain []gateway.Layer) (time.Duration, error) {
	if pulling, err := h.virt.Pulling(ctx, m.ID); pulling || err != nil {
		return mergePoll, err
	}
	top, base := chain[0], chain[len(chain)-1]
	files, err := h.virt.DiskFiles(ctx, m.ID, false)
	if err != nil || files[0] != h.layers.Path(top) { // the latter: see checkDisk
		return 0, err
	}
	if slices.Equal(files, []string{h.layers.Path(top), h.layers.Path(base)}) {
		return 0, h.recordMerge(ctx, m, chain)
	}
	var need int64
	for _, l := range chain[1 : len(chain)-1] {
		need += disk.Occupied(h.layers.Path(l))
	}
	if err := disk.CheckRoom(h.cfg.diskDir(), need); err != nil {
		return 0, err
	}
	h.log.InfoContext(ctx, "disk is being merged", "vm", m.Name)
	return mergePoll, h.virt.Pull(ctx, m.ID, h.layers.Path(base), mergeMiB)
}

// recordMerge has the VM write to a further layer, and records that the merged one needs the lowest
// alone.
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
	// libvirtd has taken its access away from the layers that the domain no longer uses: others may.
	for _, l := range chain[:len(chain)-1] {
		if err := libvirt.Seal(h.layers.Path(l)); err != nil { // the next start tries again
			h.log.WarnContext(ctx, "layer was not sealed", "vm", m.Name, "path", l.File, "err", err)
		}
	}
	return h.sweepLayers(ctx, gateway.ID{})
}

func isRefused(err error) bool { return errors.Is(err, libvirt.ErrRefused) }

// awaitMerge waits for a merge of a VM's disk that is in progress, for mergeWait or, when the disk can have
// no more layers, for as long as ctx allows, and records it. A scheduled checkpoint waits for no merge, and
// is tried again. The caller holds the worker's turn, and reads the VM's record anew.
func (h *Host) awaitMerge(ctx context.Context, m gateway.VM, state libvirt.State, kind gateway.CheckpointKind) error {
	chain, err := h.layers.Chain(m.Disk)
	if err != nil || len(chain) < h.cfg.MergeAt || hasEnded(state) {
		return err
	}
	if len(chain) < maxChain {
		limited, cancel := context.WithTimeout(ctx, mergeWait)
		defer cancel()
		ctx = limited
	}
	poll := time.NewTicker(pollEvery / 5)
	defer poll.Stop()
	for {
		again, err := h.mergeStep(ctx, m, chain)
		if err != nil || again == 0 {
			return err
		}
		if kind == gateway.CheckpointScheduled {
			return errMerging(m.Name)
		}
		select {
		case <-ctx.Done():
			return nil // the change of the disk ends the merge
		case <-poll.C:
		}
	}
}

func errMerging(name string) error {
	return gateway.Errorf(gateway.KindUnavailable, "the layers of the disk of %s are being merged", name).WithHint("Try again in a minute.")
}

// endMerge ends a merge, during which QEMU refuses a change of the disk: what was merged by then stays, and
// the next merge does the rest.
func (h *Host) endMerge(ctx context.Context, id gateway.ID) error {
	pulling, err := h.virt.Pulling(ctx, id)
	if err != nil || !pulling {
		return err
	}
	return h.virt.EndPull(ctx, id)
}
