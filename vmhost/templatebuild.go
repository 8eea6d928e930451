package vmhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"lodge/gateway"
	"lodge/vmhost/disk"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/seed"
	"lodge/vmhost/template"
)

// makeTemplate boots a guest without an identity, and saves it once it waits for one.
func (h *Host) makeTemplate(ctx context.Context, b *templateBuild) (made template.Template, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, templateLimit, errors.New("its guest did not boot in time"))
	defer cancel()
	h.templates.guest.Lock()
	defer h.templates.guest.Unlock()
	if err := h.virt.EndTemplates(ctx); err != nil { // before anything is made
		return made, err
	}
	store := h.templates.store
	if err := disk.CheckRoom(store.Dir(), disk.Occupied(b.img.Disk)); err != nil {
		return made, err
	}
	draft, err := store.Draft(b.key)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, draft.Discard()) }()
	if err := h.makeTemplateDisk(ctx, b, draft); err != nil {
		return made, explainFull(err, store.Dir())
	}
	def := libvirt.Definition{
		VM: gateway.Identity{ID: gateway.NewID(), Name: "template"}, Template: true, Generation: gateway.NewID(),
		CPUs: b.key.CPUs, MemoryMiB: b.key.MemoryMiB, KVM: b.key.Accel == "kvm",
		Disks: []libvirt.Disk{{File: draft.Disk, Format: gateway.Raw}}, Seed: filepath.Join(draft.Dir, "seed"),
		Console: h.cfg.consoleFile(gateway.ID{}), Log: filepath.Join(draft.Dir, "console.log"),
	}
	defer func() {
		if err != nil {
			_ = h.virt.EndTemplates(context.WithoutCancel(ctx)) // the next build tries again
		}
	}()
	if err := h.virt.StartTemplate(ctx, def); err != nil {
		return made, err
	}
	if err := h.awaitTemplate(ctx, def); err != nil {
		return made, err
	}
	if err := h.virt.SaveTemplate(ctx, def, draft.Memory); err != nil {
		return made, err
	}
	made, err = draft.Publish(ctx)
	return made, explainFull(err, store.Dir())
}

// makeTemplateDisk copies the image's disk, whose content must be that of the key: somebody may
// have replaced the image meanwhile. The seed is empty.
func (h *Host) makeTemplateDisk(ctx context.Context, b *templateBuild, draft *template.Draft) error {
	if err := disk.CopyTemp(ctx, draft.Disk, b.img.Disk); err != nil {
		return err
	}
	sum, err := disk.Sum(ctx, draft.Disk)
	if err != nil {
		return err
	}
	if sum != b.key.Sum {
		return errImageChanged(b.img.Name)
	}
	blank, err := os.Create(filepath.Join(draft.Dir, "seed"))
	if err != nil {
		return fmt.Errorf("make seed: %w", err)
	}
	return errors.Join(blank.Truncate(seed.Bytes), blank.Close())
}

// awaitTemplate waits until the guest waits for an identity.
func (h *Host) awaitTemplate(ctx context.Context, def libvirt.Definition) error {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for last, size := time.Now(), 0; ; {
		text, err := os.ReadFile(def.Log)
		if len(text) > size {
			last, size = time.Now(), len(text)
		}
		switch {
		case bytes.Contains(text, []byte(waitingLine)):
			return nil
		case err != nil && !os.IsNotExist(err):
			return fmt.Errorf("read console of the template: %w", err)
		case time.Since(last) > templateStall:
			return fmt.Errorf("the guest of the template has written nothing for %s", templateStall)
		}
		state, err := h.virt.State(ctx, def.VM.ID)
		if err == nil && state != libvirt.Running {
			return fmt.Errorf("the guest of the template ended: its state is %s", state)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
