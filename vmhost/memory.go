package vmhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/disk"
	"lodge/vmhost/libvirt"
)

// The memory of a checkpoint is a save file of libvirt's, beside the layers. It belongs to the disk as
// the checkpoint has it: a guest goes on from it once after a rollback, on a new layer over that one, or
// boots.

func (c Config) ramDir() string { return filepath.Join(c.StateDir, "memory") }

func (c Config) ramFile(id gateway.CheckpointID) string {
	return filepath.Join(c.ramDir(), string(id))
}

// checkMemory checks that the memory of a VM in this state can be kept.
func (h *Host) checkMemory(m gateway.VM, state libvirt.State) error {
	if state != libvirt.Running {
		return gateway.Errorf(gateway.KindConflict, "%s does not run, so it has no memory", m.Name).
			WithHint("Start it first, or make the checkpoint without --memory.")
	}
	return disk.CheckRoom(h.cfg.ramDir(), int64(m.MemoryMiB)<<20)
}

// pivotWithMemory changes the disk over, and keeps the memory of that moment, synced.
func (h *Host) pivotWithMemory(ctx context.Context, c gateway.Checkpoint, path string) error {
	file := h.cfg.ramFile(c.ID)
	err := h.virt.PivotWithMemory(ctx, c.VM, path, file)
	h.at("memory")
	if err == nil {
		err = errors.Join(durable.Sync(file), durable.Sync(h.cfg.ramDir()))
	}
	if err != nil && ctx.Err() != nil {
		err = gateway.Errorf(gateway.KindUnavailable, "the memory was not written within %s, during which mail and objects wait", holdLimit).
			WithHint("Try again when the host is less busy, or make the checkpoint without --memory.").Because(err)
	}
	return err
}

// dropMemory removes the memory of a checkpoint. It is no error when there is none.
func (h *Host) dropMemory(id gateway.CheckpointID) error {
	if err := os.Remove(h.cfg.ramFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove memory of a checkpoint: %w", err)
	}
	return nil
}

// sweepMemory removes memory of which no checkpoint is recorded.
func (h *Host) sweepMemory() error {
	keep := map[string]bool{}
	for _, m := range h.dir.All() {
		for _, c := range h.checkpoints.Of(m.ID) {
			keep[string(c.ID)] = c.Memory
		}
	}
	entries, err := os.ReadDir(h.cfg.ramDir())
	errs := []error{err}
	for _, e := range entries {
		if !keep[e.Name()] {
			errs = append(errs, h.dropMemory(gateway.CheckpointID(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// goOn starts a VM that was just rolled back from the memory of the checkpoint. The incarnation stays,
// so programs in the guest keep their credentials. After an error the VM boots: the disk is then as after
// a loss of power at that moment.
func (h *Host) goOn(ctx context.Context, w *worker, c gateway.Checkpoint) error {
	return h.starting(ctx, w, func() error {
		m, ok := h.dir.ByID(w.id)
		if !ok || m.Desired != gateway.Running {
			return errChanged()
		}
		if err := h.startFromMemory(ctx, w, m, h.cfg.ramFile(c.ID), restored); err != nil {
			return err
		}
		if err := h.virt.SetClock(ctx, m.ID, time.Now()); err != nil { // its NTP client does it later
			h.log.WarnContext(ctx, "clock of the guest was not set", "vm", m.Name, "err", err)
		}
		h.log.InfoContext(ctx, "VM goes on from the memory of a checkpoint", "vm", m.Name, "checkpoint", c.Name)
		return nil
	})
}

// startFromMemory starts a VM from a copy of a save file, with the VM's own identity: its tap, rules and
// listeners are there before the guest runs. logged is for startsNow.
func (h *Host) startFromMemory(ctx context.Context, w *worker, m gateway.VM, from string, logged int64) error {
	def, err := h.definition(ctx, m)
	if err != nil {
		return err
	}
	memory := h.cfg.memoryFile(m.ID)
	defer os.Remove(memory) //nolint:errcheck // removal of the VM, or the next daemon, tries again
	if err := disk.CopyTemp(ctx, memory, from); err != nil {
		return err
	}
	if err := libvirt.Adopt(memory, def); err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	if err := h.identify(ctx, w, m.Identity); err != nil {
		return err
	}
	w.startsNow(logged)
	if err := h.virt.StartResumed(ctx, def, memory); err != nil {
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	if err := h.virt.AnnounceDisk(ctx, m.ID, uint64(m.DiskGiB)<<30); err != nil { //nolint:gosec // check has limited it
		h.log.WarnContext(ctx, "size of the disk was not announced", "vm", m.Name, "err", err) // the next boot reads it
	}
	return nil
}
