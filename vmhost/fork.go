package vmhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/disk"
	"lodge/vmhost/seed"
)

// Fork makes a VM with the disk and the Parts of a checkpoint of another, or of its
// present state if the checkpoint is empty, and starts it. The other VM runs on. The new one has its own
// name, number, address, keys and ids, which its guest takes from its seed at the first boot; the
// grants of spec, and no shares and no settings. None of the old mail is delivered to it. After an error,
// or when ctx ends, nothing of it is left.
func (h *Host) Fork(ctx context.Context, id gateway.ID, checkpoint string, spec gateway.Spec, report func(gateway.Progress)) (gateway.VM, error) {
	if err := h.dir.CheckFree(spec.Name); err != nil {
		return gateway.VM{}, err
	}
	begun := time.Now()
	step := func(phase, text string) {
		report(gateway.Progress{Phase: phase, Text: text, Elapsed: time.Since(begun)})
	}
	var guest seed.Guest
	var from gateway.Checkpoint
	step("checkpoint", "recording the state of "+h.name(id))
	begin := func(*worker) (err error) {
		if from, err = h.forkPoint(ctx, id, checkpoint); err != nil {
			return err
		}
		guest, err = h.recordFork(ctx, id, from, spec)
		return err
	}
	err := h.pastMerge(ctx, id, func() error { return h.exclusively(ctx, id, begin) })
	if from.Kind == gateway.CheckpointFork {
		defer h.endFork(ctx, from)
	}
	if err != nil {
		return gateway.VM{}, err
	}
	if err := h.buildFork(ctx, guest, id, from, step); err != nil {
		return gateway.VM{}, h.undo(ctx, guest.VM, err)
	}
	h.log.InfoContext(ctx, "VM was forked", "vm", guest.VM.Name)
	h.wake()
	m, _ := h.dir.ByID(guest.VM.ID) // with its incarnation
	return m, nil
}

// forkPoint returns the checkpoint to fork. The caller holds the worker's turn.
func (h *Host) forkPoint(ctx context.Context, id gateway.ID, name string) (gateway.Checkpoint, error) {
	if name != "" {
		c, err := h.checkpoints.Find(id, name)
		if err != nil {
			return c, err
		}
		return c, errors.Join(h.checkMarks(ctx, c), disk.CheckRoom(h.cfg.diskDir(), 0))
	}
	m, state, err := h.atRest(ctx, id)
	if err != nil {
		return gateway.Checkpoint{}, err
	}
	return h.checkpoint(ctx, m, state, gateway.CheckpointRequest{Kind: gateway.CheckpointFork})
}

// endFork removes the checkpoint that was made for a fork.
func (h *Host) endFork(ctx context.Context, c gateway.Checkpoint) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := h.RemoveCheckpoint(ctx, c.VM, c.ID); err != nil && gateway.KindOf(err) != gateway.KindNotFound {
		h.log.WarnContext(ctx, "checkpoint for a fork was not removed", "checkpoint", c.Name, "err", err) // the next start tries again
	}
}

// recordFork records the new VM with the layer of its disk, which nobody sweeps from then on.
func (h *Host) recordFork(ctx context.Context, id gateway.ID, from gateway.Checkpoint, spec gateway.Spec) (seed.Guest, error) {
	parent, ok := h.dir.ByID(id)
	if !ok {
		return seed.Guest{}, errGone()
	}
	hostKey, hostPublic, err := newKey(spec.Name)
	if err != nil {
		return seed.Guest{}, err
	}
	m := gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: spec.Name}, Size: parent.Size, Desired: gateway.Running,
		HostKey: hostPublic, Grants: spec.Grants,
	}
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	below, err := h.layers.Get(from.Layer)
	if err != nil {
		return seed.Guest{}, err
	}
	l, err := h.layers.Reserve(ctx, below, m.ID, max(int64(m.DiskGiB)<<30, below.Bytes))
	if err != nil {
		return seed.Guest{}, err
	}
	m.Disk = l.ID
	if m, err = h.dir.Create(ctx, m); err != nil {
		return seed.Guest{}, errors.Join(err, h.layers.Remove(context.WithoutCancel(ctx), l.ID))
	}
	h.at("forked")
	return seed.Guest{
		VM: m, Domain: h.cfg.Domain, HostKeyPEM: hostKey, AuthorizedKey: h.login, RootPEM: h.cfg.RootPEM, Random: randomBytes(),
	}, nil
}

// buildFork makes what a recorded fork needs and starts it. The user data of the other VM was for that
// one: it is not applied again.
func (h *Host) buildFork(ctx context.Context, guest seed.Guest, parent gateway.ID, from gateway.Checkpoint, step func(phase, text string)) error {
	return h.exclusively(ctx, guest.VM.ID, func(w *worker) error {
		step("disk", "making the disk")
		if err := h.makeFork(ctx, guest, parent, from); err != nil {
			return explainFull(err, h.cfg.diskDir())
		}
		step("define", "starting the VM")
		if err := h.setReady(ctx, w.id); err != nil {
			return err
		}
		return h.bringUp(ctx, w)
	})
}

// makeFork makes the disk, the seed and the Parts of a fork, all on disk when it returns.
func (h *Host) makeFork(ctx context.Context, guest seed.Guest, parent gateway.ID, from gateway.Checkpoint) error {
	m := guest.VM
	if err := h.layers.Make(ctx, m.Disk, false); err != nil {
		return err
	}
	if err := h.layers.Done(ctx, m.Disk); err != nil {
		return err
	}
	if m.DirectBoot {
		if err := h.copyBoot(ctx, m.ID, parent); err != nil {
			return err
		}
	}
	if err := seed.Write(h.cfg.seedFile(m.ID), guest); err != nil {
		return fmt.Errorf("make seed: %w", err)
	}
	for _, part := range h.cfg.Parts {
		if err := part.Fork(ctx, parent, from.ID, m.ID); err != nil {
			return fmt.Errorf("fork mail and objects: %w", err)
		}
	}
	return durable.Sync(h.cfg.diskDir())
}

// copyBoot copies what the parent boots directly from.
func (h *Host) copyBoot(ctx context.Context, id, parent gateway.ID) error {
	const mode = 0o644 // QEMU, which is not root, opens them
	cmdline, err := os.ReadFile(h.cfg.cmdlineFile(parent))
	err = errors.Join(err,
		disk.Copy(ctx, h.cfg.kernelFile(id), h.cfg.kernelFile(parent), mode),
		disk.Copy(ctx, h.cfg.initrdFile(id), h.cfg.initrdFile(parent), mode),
		durable.WriteFile(h.cfg.cmdlineFile(id), cmdline, 0o600),
	)
	if err != nil {
		return fmt.Errorf("copy kernel: %w", err)
	}
	return nil
}
