package vmhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lodge/gateway"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/template"
)

// disks is the Directory as the tree of layers needs it.
type disks struct{ dir *gateway.Directory }

// Disk implements layers.VMs.
func (d disks) Disk(vm gateway.ID) (gateway.LayerID, bool) {
	m, ok := d.dir.ByID(vm)
	return m.Disk, ok
}

// SetDisk implements layers.VMs.
func (d disks) SetDisk(ctx context.Context, vm gateway.ID, layer gateway.LayerID) error {
	_, err := d.dir.Update(ctx, vm, func(m *gateway.VM) error {
		m.Disk = layer
		return nil
	})
	return err
}

// reserve records the intent of a layer for the disk of a VM, over that of its source, and has name
// record which it is. From then on what is below it stays, whoever removes or replaces it.
func (h *Host) reserve(ctx context.Context, m gateway.VM, s *source, name func(gateway.LayerID) error) error {
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	if _, err := os.Stat(s.template.Memory); s.template.ID != "" && err != nil { // removed meanwhile
		s.template = template.Template{}
	}
	over, err := h.base(ctx, *s)
	if err != nil {
		return err
	}
	l, err := h.layers.Reserve(ctx, over, m.ID, int64(m.DiskGiB)<<30)
	if gateway.KindOf(err) == gateway.KindNotFound {
		return errRebuilt(s.img.Name).Because(err)
	}
	if err != nil {
		return err
	}
	if err := name(l.ID); err != nil {
		return errors.Join(err, h.layers.Remove(context.WithoutCancel(ctx), l.ID))
	}
	return nil
}

// base returns the layer below the disk of a new VM.
func (h *Host) base(ctx context.Context, s source) (gateway.Layer, error) {
	if s.template.ID != "" {
		return h.rootLayer("template/"+s.template.ID, s.template.Disk), nil
	}
	if s.img.Immutable {
		return h.rootLayer("image/"+image.ContentName(s.img.Name, s.img.Sum), s.img.Disk), nil
	}
	return h.importImage(ctx, s.img)
}

// rootLayer is one without a row as yet, whose file is that of an image or a template.
func (h *Host) rootLayer(id, path string) gateway.Layer {
	file, _ := filepath.Rel(h.cfg.StateDir, path) // both have the same root
	return gateway.Layer{
		ID: gateway.LayerID(id), File: file, Format: gateway.Raw, State: gateway.LayerReady, Created: time.Now().UTC().Truncate(time.Second),
	}
}

// importImage returns the layer of an image whose disk may be replaced in place: a copy of it, made
// for its first VM.
func (h *Host) importImage(ctx context.Context, img image.Image) (gateway.Layer, error) {
	sum := img.Sum
	if sum == "" {
		var err error
		if sum, err = disk.Sum(ctx, img.Disk); err != nil {
			return gateway.Layer{}, err
		}
	}
	need := func() error { return disk.CheckRoom(h.cfg.diskDir(), disk.Occupied(img.Disk)) }
	l, err := h.layers.Import(ctx, gateway.LayerID("image/"+image.ContentName(img.Name, sum)), img.Disk, need, func(copied string) error {
		got, err := disk.Sum(ctx, copied)
		if err == nil && got != sum {
			err = errImageChanged(img.Name)
		}
		return err
	})
	return l, explainFull(err, h.cfg.diskDir())
}

func errRebuilt(image string) *gateway.Error {
	return gateway.Errorf(gateway.KindConflict, "the image %q was built anew meanwhile", image).WithHint("Try again.")
}

func errImageChanged(name string) error {
	return gateway.Errorf(gateway.KindConflict, "the disk of the image %s has changed since it was built", name).
		WithHint("Build it again: lodge image build %s", name)
}

// setDisks makes the definition one with all layers of the VM's disk.
func (h *Host) setDisks(def *libvirt.Definition, m gateway.VM) error {
	chain, err := h.layers.Chain(m.Disk)
	if err != nil {
		return gateway.Errorf(gateway.KindConflict, "the disk of %s has no record: %v", m.Name, err).Because(err).
			WithHint("Restore the state file from a backup of the host. Nothing of the VM was changed.")
	}
	for i, l := range chain {
		path := h.layers.Path(l)
		if _, err := os.Stat(path); err != nil {
			return errLayer(m.Name, path).Because(err)
		}
		if i > 0 && l.VM != (gateway.ID{}) {
			if err := libvirt.Seal(path); err != nil {
				return err
			}
		}
		def.Disks = append(def.Disks, libvirt.Disk{File: path, Format: l.Format})
	}
	return nil
}

// errLayer is for a VM whose disk cannot be read without a file.
func errLayer(name, path string) *gateway.Error {
	return gateway.Errorf(gateway.KindConflict, "the disk of %s needs %s, which cannot be read", name, path).
		WithHint("Restore that file from a backup of the host. Nothing of the VM was changed.")
}

// sweepLayers removes the layers on which nothing counts, among them those of the VM gone, which is
// being removed; then what is left of templates and images that were removed or replaced.
func (h *Host) sweepLayers(ctx context.Context, gone gateway.ID) error {
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	named := h.checkpoints.Layers()
	for _, m := range h.dir.All() {
		named[m.Disk] = named[m.Disk] || m.ID != gone
		if m.Rollback != nil && m.ID != gone {
			named[m.Rollback.Disk] = true
		}
	}
	err := h.layers.Sweep(ctx, func(l gateway.Layer) bool {
		_, known := h.dir.ByID(l.VM)
		switch {
		case named[l.ID]:
			return true
		case l.State == gateway.LayerMaking:
			return l.VM == gateway.ID{} || l.VM != gone
		case l.State == gateway.LayerLeft:
			return false
		default:
			return l.VM != gateway.ID{} && !known // its record may have been lost
		}
	})
	bases := errors.Join(
		h.templates.store.Sweep(func(id string) bool { return h.isBase(h.templates.store.Disk(id)) }),
		image.Sweep(h.cfg.imageDir(), h.isBase),
	)
	if bases != nil {
		h.log.ErrorContext(ctx, "disks of images and templates were not removed", "err", bases) // the next sweep tries again
	}
	left := slices.ContainsFunc(h.layers.All(), func(l gateway.Layer) bool { return gone != gateway.ID{} && l.VM == gone })
	if err != nil && !left { // another VM's layer that cannot be removed is no reason to keep this one
		h.log.ErrorContext(ctx, "layers were not removed", "err", err) // as above
		return nil
	}
	return err
}

// isBase reports whether the disk at path is below that of a VM. Files without a record count as
// well: they may belong to a database that was lost.
func (h *Host) isBase(path string) bool {
	if h.layers.Has(path) {
		return true
	}
	entries, err := os.ReadDir(h.cfg.diskDir())
	return err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		file := filepath.Join(h.cfg.diskDir(), e.Name())
		if filepath.Ext(file) != ".qcow2" || h.layers.Has(file) {
			return false
		}
		base, err := disk.Base(file)
		return err != nil && !errors.Is(err, fs.ErrNotExist) || base == path // one that cannot be read may need any
	})
}

// removeFiles removes the other files of a VM, with the console logs that virtlogd has rotated.
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
		if h.layers.Has(file) { // a layer below the disk of another VM
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove file: %w", err)
		}
	}
	return nil
}
