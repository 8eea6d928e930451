package vmhost

import (
	"context"
	"fmt"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
	"lodge/vmhost/seed"
)

// undoLimit is how long the removal of a half-made VM may take.
const undoLimit = time.Minute

// New makes a VM and starts it, and calls report in the phases "disk" and "define". It returns once
// the domain runs; Wait waits for the guest. When a step fails or ctx ends, New removes all that it
// has made.
func (h *Host) New(ctx context.Context, spec gateway.Spec, report func(gateway.Progress)) (gateway.VM, error) {
	spec.Size = fill(spec.Size, h.cfg.Defaults)
	memory, err := hostMemory()
	if err != nil {
		return gateway.VM{}, err
	}
	if err := check(spec, memory); err != nil {
		return gateway.VM{}, err
	}
	img, err := image.Open(h.cfg.imageDir(), spec.Image)
	if err != nil {
		return gateway.VM{}, err
	}
	if err := h.await(ctx); err != nil {
		return gateway.VM{}, err
	}
	h.accel.Offer(img.Kernel) // so that the probe runs while the disk is made
	if err := disk.CheckRoom(h.cfg.diskDir(), img.Disk); err != nil {
		return gateway.VM{}, err
	}
	if _, err := h.virt.Ping(ctx); err != nil { // before anything is made
		return gateway.VM{}, err
	}
	hostKey, hostPublic, err := newKey(spec.Name)
	if err != nil {
		return gateway.VM{}, err
	}
	m, err := h.dir.Create(ctx, gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: spec.Name},
		Size:     spec.Size, Desired: gateway.Running, HostKey: hostPublic,
	})
	if err != nil {
		return gateway.VM{}, err
	}
	guest := seed.Guest{
		VM: m, Domain: h.cfg.Domain, HostKeyPEM: hostKey, AuthorizedKey: h.login, RootPEM: h.cfg.RootPEM, UserData: spec.UserData,
	}
	if err := h.build(ctx, guest, img, report); err != nil {
		return gateway.VM{}, h.undo(ctx, m, err)
	}
	h.log.InfoContext(ctx, "VM was made", "vm", m.Name)
	h.wake()
	m, _ = h.dir.ByID(m.ID) // with its incarnation
	return m, nil
}

// build makes what a recorded VM needs and starts it.
func (h *Host) build(ctx context.Context, guest seed.Guest, img image.Image, report func(gateway.Progress)) error {
	begun := time.Now()
	step := func(phase, text string) {
		report(gateway.Progress{Phase: phase, Text: text, Elapsed: time.Since(begun)})
	}
	return h.exclusively(ctx, guest.VM.ID, func(w *worker) error {
		step("disk", "making the disk")
		if err := h.makeDisks(ctx, guest, img); err != nil {
			return err
		}
		step("define", "starting the VM")
		if _, err := h.dir.Update(ctx, w.id, func(m *gateway.VM) error {
			m.Ready = true
			return nil
		}); err != nil {
			return err
		}
		return h.bringUp(ctx, w)
	})
}

// makeDisks makes the root disk and the seed, both on disk when it returns.
func (h *Host) makeDisks(ctx context.Context, guest seed.Guest, img image.Image) error {
	m := guest.VM
	diskFile, seedFile := h.cfg.diskFile(m.ID), h.cfg.seedFile(m.ID)
	if err := disk.Create(ctx, diskFile, img.Disk, m.DiskGiB); err != nil {
		return explainFull(fmt.Errorf("make disk: %w", err), h.cfg.diskDir())
	}
	if err := seed.Write(seedFile, guest); err != nil {
		return explainFull(fmt.Errorf("make seed: %w", err), h.cfg.diskDir())
	}
	return explainFull(durable.Sync(h.cfg.diskDir()), h.cfg.diskDir()) // the writers of the files have synced those
}

// undo removes what New has made, and returns why. It ignores cancellation. The worker later
// removes what undo could not.
func (h *Host) undo(ctx context.Context, m gateway.VM, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := h.Remove(ctx, m.ID); err != nil && gateway.KindOf(err) != gateway.KindNotFound {
		h.log.ErrorContext(ctx, "half-made VM was not removed", "vm", m.Name, "err", err)
	}
	return why
}

// explainFull turns err, which may be nil, into KindNoSpace when it is about a full disk.
func explainFull(err error, dir string) error {
	if !durable.IsFull(err) {
		return err
	}
	return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full: no room for the VM in %s", dir).
		WithHint("Make room there (df -h %s), then try again. Nothing was left behind.", dir).Because(err)
}
