package vmhost

import (
	"context"
	"crypto/rand"
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

// New makes a VM and starts it, and calls report in the phases "disk" and "define". It resumes a
// template, which takes a second; the first VM of a size waits until that is made (phase
// "template"). Where there is none, or the VM's Spec asks for it, it boots (phase "boot", with the
// reason). New returns once the domain runs; Wait waits for the guest. When a step fails or ctx ends,
// New removes all that it has made.
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
	if err := disk.CheckRoom(h.cfg.diskDir(), 0); err != nil {
		return gateway.VM{}, err
	}
	if _, err := h.virt.Ping(ctx); err != nil { // before anything is made
		return gateway.VM{}, err
	}
	begun := time.Now()
	step := func(phase, text string) {
		report(gateway.Progress{Phase: phase, Text: text, Elapsed: time.Since(begun)})
	}
	guest, from, err := h.recordNew(ctx, spec, img, step)
	if err != nil {
		return gateway.VM{}, err
	}
	if err := h.build(ctx, guest, from, step); err != nil {
		return gateway.VM{}, h.undo(ctx, guest.VM, err)
	}
	h.log.InfoContext(ctx, "VM was made", "vm", guest.VM.Name)
	h.wake()
	m, _ := h.dir.ByID(guest.VM.ID) // with its incarnation
	return m, nil
}

// recordNew chooses the source of a new VM and records the VM.
func (h *Host) recordNew(ctx context.Context, spec gateway.Spec, img image.Image, step func(phase, text string)) (seed.Guest, source, error) {
	if err := h.dir.CheckFree(spec.Name); err != nil { // before the wait for a template
		return seed.Guest{}, source{}, err
	}
	from, err := h.chooseSource(ctx, spec, img, step)
	if err != nil {
		return seed.Guest{}, from, err
	}
	chosen := from.template.ID
	hostKey, hostPublic, err := newKey(spec.Name)
	if err != nil {
		return seed.Guest{}, from, err
	}
	m, err := h.claim(ctx, gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: spec.Name},
		Size:     spec.Size, Desired: gateway.Running, HostKey: hostPublic, Grants: spec.Grants,
	}, &from)
	if chosen != "" && from.template.ID == "" {
		step("boot", "booting: its template was removed meanwhile")
	}
	return seed.Guest{
		VM: m, Domain: h.cfg.Domain, HostKeyPEM: hostKey, AuthorizedKey: h.login, RootPEM: h.cfg.RootPEM, UserData: spec.UserData,
		Random: randomBytes(),
	}, from, err
}

// randomBytes are enough to seed a random number generator.
func randomBytes() []byte {
	b := make([]byte, 64)
	_, _ = rand.Read(b) // crypto/rand.Read never fails (it aborts the program instead)
	return b
}

// build makes what a recorded VM needs and starts it.
func (h *Host) build(ctx context.Context, guest seed.Guest, from source, step func(phase, text string)) error {
	return h.exclusively(ctx, guest.VM.ID, func(w *worker) error {
		step("disk", "making the disk")
		if from.template.ID == "" {
			if err := h.makeReady(ctx, guest, from, step); err != nil {
				return err
			}
			return h.bringUp(ctx, w)
		}
		made, err := h.buildResumed(ctx, w, guest, from, step)
		if err == nil || !made || ctx.Err() != nil || !h.wants(w.id, gateway.Running) {
			return err
		}
		h.log.WarnContext(ctx, "VM boots, resuming it failed", "vm", guest.VM.Name, "err", err)
		step("boot", "booting: "+explain(err))
		if failed := h.bootInstead(ctx, w, guest, from); failed != nil {
			return failed // perhaps it was not the template's fault
		}
		h.distrust(ctx, from.template, err)
		return nil
	})
}

// makeReady makes the disks of a VM, and records that.
func (h *Host) makeReady(ctx context.Context, guest seed.Guest, from source, step func(phase, text string)) error {
	if err := h.makeDisks(ctx, guest, from); err != nil {
		return err
	}
	step("define", "starting the VM")
	return h.setReady(ctx, guest.VM.ID)
}

// setReady records that the VM's disk and seed are complete.
func (h *Host) setReady(ctx context.Context, id gateway.ID) error {
	_, err := h.dir.Update(ctx, id, func(m *gateway.VM) error {
		m.Ready = true
		return nil
	})
	return err
}

// makeDisks makes the root disk, the copies for direct boot and the seed, all on disk when it
// returns.
func (h *Host) makeDisks(ctx context.Context, guest seed.Guest, from source) error {
	if err := h.layers.Make(ctx, guest.VM.Disk, from.template.ID == ""); err != nil { // a template's guest grows its partition itself
		return explainFull(err, h.cfg.diskDir())
	}
	if err := h.layers.Done(ctx, guest.VM.Disk); err != nil {
		return err
	}
	if guest.VM.DirectBoot {
		if err := h.makeBoot(ctx, guest.VM.ID, from.img); err != nil {
			return explainFull(err, h.cfg.diskDir())
		}
	}
	if err := seed.Write(h.cfg.seedFile(guest.VM.ID), guest); err != nil {
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
