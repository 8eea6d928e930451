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
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
)

// The memory of a checkpoint is a save file of libvirt's. It is of use with the disk of the checkpoint
// alone: a rollback resumes it at once, on a new layer over that disk. Any later start boots.

func (c Config) memoryDir() string { return filepath.Join(c.StateDir, "memory") }

func (c Config) savedFile(id gateway.CheckpointID) string {
	return filepath.Join(c.memoryDir(), string(id))
}

// checkMemory checks that the memory of a VM in this state can be kept, and returns what the host has to be
// like to resume it: guests see its CPU, and QEMU reads no memory of a later version.
func (h *Host) checkMemory(ctx context.Context, m gateway.VM, state libvirt.State) (needs string, err error) {
	if state != libvirt.Running {
		return "", gateway.Errorf(gateway.KindConflict, "%s does not run, so it has no memory", m.Name).
			WithHint("Start it first, or make the checkpoint without --memory.")
	}
	if err := disk.CheckRoom(h.cfg.memoryDir(), int64(m.MemoryMiB)<<20); err != nil {
		return "", err
	}
	return h.memoryNeeds(ctx, m)
}

func (h *Host) memoryNeeds(ctx context.Context, m gateway.VM) (string, error) {
	kvm, err := h.accel.UseKVM(ctx, func() (string, error) {
		img, err := image.Open(h.cfg.imageDir(), m.Image)
		return img.Kernel, err
	})
	if err != nil {
		return "", err
	}
	accel, cpu, err := guestCPU(kvm)
	if err != nil {
		return "", err
	}
	qemu, _, err := h.virt.Versions(ctx)
	return fmt.Sprintf("%s %s, QEMU %d", accel, cpu, qemu), err
}

// pivotWithMemory changes the disk over, and keeps the memory of that moment.
func (h *Host) pivotWithMemory(ctx context.Context, c gateway.Checkpoint, path string) error {
	file := h.cfg.savedFile(c.ID)
	err := h.virt.PivotWithMemory(ctx, c.VM, path, file)
	h.at("memory")
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = gateway.Errorf(gateway.KindUnavailable, "the memory was not written within %s, during which mail and objects wait", holdLimit).
			WithHint("Try again when the host is less busy, or make the checkpoint without --memory.").Because(err)
	}
	return err
}

// syncMemory brings the memory of a checkpoint to disk, if it has one. Nothing is held back meanwhile.
func (h *Host) syncMemory(c gateway.Checkpoint) error {
	if c.Memory == "" {
		return nil
	}
	return errors.Join(durable.Sync(h.cfg.savedFile(c.ID)), durable.Sync(h.cfg.memoryDir()))
}

// dropMemory removes the memory of a checkpoint. It is no error when there is none.
func (h *Host) dropMemory(id gateway.CheckpointID) error {
	if err := os.Remove(h.cfg.savedFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove memory of a checkpoint: %w", err)
	}
	return nil
}

// sweepMemory removes memory of which no checkpoint is recorded.
func (h *Host) sweepMemory() error {
	keep := map[string]bool{}
	for _, m := range h.dir.All() {
		for _, c := range h.checkpoints.Of(m.ID) {
			keep[string(c.ID)] = c.Memory != ""
		}
	}
	entries, err := os.ReadDir(h.cfg.memoryDir())
	errs := []error{err}
	for _, e := range entries {
		if !keep[e.Name()] {
			errs = append(errs, h.dropMemory(gateway.CheckpointID(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// resumeSaved starts a VM that was just rolled back from the memory of the checkpoint. The incarnation
// stays, so programs in the guest keep their credentials. After an error it ends what may run.
func (h *Host) resumeSaved(ctx context.Context, w *worker, c gateway.Checkpoint) error {
	m, ok := h.dir.ByID(w.id)
	if !ok {
		return errGone()
	}
	switch needs, err := h.memoryNeeds(ctx, m); {
	case err != nil:
		return err
	case needs != c.Memory:
		return fmt.Errorf("it needs %s, and this host has %s", c.Memory, needs)
	}
	saved, memory := h.cfg.savedFile(c.ID), h.cfg.memoryFile(w.id)
	if err := disk.CheckRoom(h.cfg.diskDir(), disk.Occupied(saved)); err != nil {
		return err
	}
	defer os.Remove(memory) //nolint:errcheck // removal of the VM, or the next daemon, tries again
	if err := disk.CopyTemp(ctx, memory, saved); err != nil {
		return err
	}
	if err := h.starting(ctx, w, func() error {
		m, ok := h.dir.ByID(w.id)
		if !ok || m.Desired != gateway.Running {
			return errChanged()
		}
		return h.startFromMemory(ctx, w, m, memory, restored)
	}); err != nil {
		return errors.Join(err, h.virt.Destroy(ctx, w.id), h.virt.Undefine(ctx, w.id))
	}
	if err := h.virt.SetClock(ctx, w.id, time.Now()); err != nil { // its NTP client does it later
		h.log.WarnContext(ctx, "clock of the guest was not set", "vm", m.Name, "err", err)
	}
	h.log.InfoContext(ctx, "VM was resumed from the memory of a checkpoint", "vm", m.Name, "checkpoint", c.Name)
	return nil
}

// startFromMemory starts a VM from a save file of its own, which it adapts to the VM's identity and disk. Its
// tap, rules and listeners are there before the guest runs. logged is for startsNow.
func (h *Host) startFromMemory(ctx context.Context, w *worker, m gateway.VM, memory string, logged int64) error {
	def, err := h.definition(ctx, m)
	if err != nil {
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
