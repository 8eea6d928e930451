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
	"lodge/vmhost/seed"
)

// undoLimit is how long taking a half-made VM away may take, once the caller has gone.
const undoLimit = time.Minute

// New makes a VM and starts it; report hears of the phases "disk" and "define". It returns once the domain runs; Wait waits for
// the guest. When anything fails, or ctx ends, nothing of the VM stays.
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
	m, err = h.build(ctx, m, img, seed.Guest{
		VM: m, Domain: h.cfg.Domain, HostKeyPEM: hostKey, AuthorizedKey: h.login, RootPEM: h.cfg.RootPEM, UserData: spec.UserData,
	}, report)
	if err != nil {
		return gateway.VM{}, h.undo(ctx, m, err)
	}
	h.log.InfoContext(ctx, "VM was made", "vm", m.Name)
	h.lookAgain()
	return m, nil
}

// build makes what a recorded VM needs and starts it.
func (h *Host) build(ctx context.Context, m gateway.VM, img image.Image, guest seed.Guest, report func(gateway.Progress)) (gateway.VM, error) {
	begun := time.Now()
	step := func(phase, text string) {
		report(gateway.Progress{Phase: phase, Text: text, Elapsed: time.Since(begun)})
	}
	w, err := h.begin(ctx, m.ID)
	if err != nil {
		return m, err
	}
	done, err := w.take(ctx)
	if err != nil {
		return m, err
	}
	defer done()
	step("disk", "making the disk")
	if err := h.makeDisks(ctx, m, img, guest); err != nil {
		return m, err
	}
	step("define", "starting the VM")
	if _, err := h.dir.Update(ctx, m.ID, func(m *gateway.VM) error {
		m.Ready = true
		return nil
	}); err != nil {
		return m, err
	}
	if err := h.bringUp(ctx, w); err != nil {
		return m, err
	}
	m, _ = h.dir.ByID(m.ID) // with its incarnation
	return m, nil
}

// makeDisks makes the root disk and the seed, both on disk when it returns.
func (h *Host) makeDisks(ctx context.Context, m gateway.VM, img image.Image, guest seed.Guest) error {
	diskFile, seedFile := h.cfg.diskFile(m.ID), h.cfg.seedFile(m.ID)
	if err := disk.Create(ctx, diskFile, img.Disk, m.DiskGiB); err != nil {
		return explainFull(fmt.Errorf("make disk: %w", err), h.cfg.diskDir())
	}
	if err := seed.Write(seedFile, guest); err != nil {
		return explainFull(fmt.Errorf("make seed: %w", err), h.cfg.diskDir())
	}
	return explainFull(durable.Sync(h.cfg.diskDir()), h.cfg.diskDir()) // the files themselves are synced by who wrote them
}

// undo takes away what New has made, although its caller may be gone, and returns why. What cannot be taken away now the worker
// takes away later.
func (h *Host) undo(ctx context.Context, m gateway.VM, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer cancel()
	if err := h.Remove(ctx, m.ID); err != nil && gateway.KindOf(err) != gateway.KindNotFound {
		h.log.ErrorContext(ctx, "half-made VM is still there", "vm", m.Name, "err", err)
	}
	return why
}

// Remove deletes the VM for good: its identity first, then the domain, then all that is kept for it. When a part does
// not work now, such as libvirtd, the VM is gone for everyone else, and the worker goes on until nothing is left.
func (h *Host) Remove(ctx context.Context, id gateway.ID) error {
	w, err := h.begin(ctx, id)
	if err != nil {
		return err
	}
	m, err := h.desire(ctx, id, gateway.Removed)
	if err != nil {
		return err
	}
	h.cfg.TapListeners.Close(id) // at once, even if a start has the turn
	defer h.lookAgain()
	done, err := w.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	return h.takeAway(ctx, w, m.Identity)
}

// takeAway does the steps of a removal; each may have been done before. The caller has the worker's turn.
func (h *Host) takeAway(ctx context.Context, w *worker, vm gateway.Identity) error {
	if _, ok := h.dir.ByID(vm.ID); !ok {
		return nil // whoever had the turn before has done it
	}
	h.cfg.TapListeners.Close(vm.ID)
	if err := h.virt.Destroy(ctx, vm.ID); err != nil {
		return err
	}
	if err := h.virt.Undefine(ctx, vm.ID); err != nil {
		return err
	}
	if err := h.cfg.Net.Down(ctx, vm); err != nil {
		return fmt.Errorf("take network away: %w", err)
	}
	for _, forget := range h.cfg.OnRemove {
		if err := forget(ctx, vm.ID); err != nil {
			return fmt.Errorf("forget the VM's data: %w", err)
		}
	}
	if err := h.removeFiles(vm.ID); err != nil {
		return err
	}
	if err := h.dir.Delete(ctx, vm.ID); err != nil {
		return err
	}
	h.log.InfoContext(ctx, "VM was removed", "vm", vm.Name)
	h.dismiss(vm.ID)
	w.poke() // its goroutine sees that the VM is gone
	return nil
}

// removeFiles deletes all files of a VM, the console logs that virtlogd has rotated included.
func (h *Host) removeFiles(id gateway.ID) error {
	files := []string{h.cfg.consoleFile(id)}
	for _, dir := range []string{h.cfg.diskDir(), h.cfg.logDir()} {
		more, err := filepath.Glob(filepath.Join(dir, id.String()+".*"))
		if err != nil {
			return fmt.Errorf("list the VM's files: %w", err)
		}
		files = append(files, more...)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove file: %w", err)
		}
	}
	return nil
}

// explainFull turns err, which may be nil, into KindNoSpace when it is about a full disk.
func explainFull(err error, dir string) error {
	if !durable.IsFull(err) {
		return err
	}
	return gateway.Errorf(gateway.KindNoSpace, "the host's disk is full: no room for the VM in %s", dir).
		WithHint("Make room there (df -h %s), then do it again. Nothing was left behind.", dir).Because(err)
}
