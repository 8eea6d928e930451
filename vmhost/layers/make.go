package layers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/disk"
)

// Reserve records the intent of a layer of bytes for a VM, over the layer over. That may be the disk
// of an image or a template that has no row yet, or one that Import has made: it is recorded with
// the other. From then on it stays. Errors: KindNotFound when over is gone, KindInvalid when it does
// not fit.
func (t *Tree) Reserve(ctx context.Context, over gateway.Layer, vm gateway.ID, bytes int64) (gateway.Layer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	have, ok := t.all[over.ID]
	if ok {
		over = have
	}
	info, err := os.Stat(t.Path(over))
	if err != nil || over.State == gateway.LayerRemoving || !ok && over.VM != (gateway.ID{}) {
		return gateway.Layer{}, missing(over.ID)
	}
	if over.Format == gateway.Raw {
		over.Bytes = info.Size()
	}
	if bytes < over.Bytes {
		return gateway.Layer{}, gateway.Invalid("a disk of %d GiB is too small for the image", bytes>>30).
			WithHint("Use at least %d GiB.", (over.Bytes+1<<30-1)>>30)
	}
	l := newLayer(over.ID, vm, gateway.QCOW2, bytes)
	rows := []gateway.Layer{l}
	if !ok || over.State == gateway.LayerMaking && over.VM == (gateway.ID{}) {
		over.State = gateway.LayerReady
		rows = []gateway.Layer{over, l}
	}
	if err := t.put(ctx, rows...); err != nil {
		return gateway.Layer{}, err
	}
	t.at("intent")
	return l, nil
}

// newLayer returns a layer of a VM, whose file is named by its ID.
func newLayer(parent gateway.LayerID, vm gateway.ID, format gateway.DiskFormat, bytes int64) gateway.Layer {
	id := gateway.LayerID(gateway.NewID().String())
	ext := map[gateway.DiskFormat]string{gateway.QCOW2: ".qcow2", gateway.Raw: ".raw"}[format]
	return gateway.Layer{
		ID: id, Parent: parent, VM: vm, File: filepath.Join(diskDir, string(id)+ext), Format: format, Bytes: bytes,
		State: gateway.LayerMaking, Created: now(),
	}
}

// Make makes the file of a layer that Reserve has recorded, synced. With grow, the partition of a
// Lodge image is extended to the end of the disk.
func (t *Tree) Make(ctx context.Context, id gateway.LayerID, grow bool) error {
	l, err := t.get(id)
	if err != nil {
		return err
	}
	over, err := t.get(l.Parent)
	if err != nil {
		return err
	}
	err = disk.Overlay{Base: t.Path(over), Format: over.Format, Bytes: l.Bytes, Grow: grow}.Create(ctx, t.Path(l))
	if err == nil {
		err = t.syncDir()
	}
	t.at("file")
	return err
}

// Done records that a layer is ready.
func (t *Tree) Done(ctx context.Context, id gateway.LayerID) error {
	err := t.setState(ctx, id, gateway.LayerReady)
	t.at("done")
	return err
}

// Import makes a layer of an image's disk that may be replaced or cannot be read by QEMU: a copy,
// made if room has no objection, which check must accept. A layer that has this ID already is
// returned as it is. Until a Reserve over it, the layer is being made.
func (t *Tree) Import(ctx context.Context, id gateway.LayerID, from string, room func() error, check func(copied string) error) (gateway.Layer, error) {
	t.importing.Lock()
	defer t.importing.Unlock()
	l, err := t.get(id)
	if err == nil && t.exists(l) {
		return l, nil
	}
	if err := room(); err != nil {
		return l, err
	}
	if err != nil {
		l = newLayer("", gateway.ID{}, gateway.Raw, 0)
		l.ID = id
		if err := t.reserveRoot(ctx, l); err != nil {
			return l, err
		}
	}
	const mode = 0o444 // QEMU, which is not root, reads it
	err = disk.Copy(ctx, t.Path(l), from, mode)
	if err == nil {
		if err = errors.Join(check(t.Path(l)), t.syncDir()); err != nil {
			_ = os.Remove(t.Path(l)) // Recover removes it otherwise
		}
	}
	t.at("file")
	return l, err
}

// reserveRoot records the intent of a layer without a parent.
func (t *Tree) reserveRoot(ctx context.Context, l gateway.Layer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.put(ctx, l)
	t.at("intent")
	return err
}

// Flatten gives a VM that is off a disk of one layer, with the content of its chain. The old layers
// stay until a Sweep. Errors: KindNoSpace when the disk would not have room for the copy.
func (t *Tree) Flatten(ctx context.Context, vm gateway.ID) (gateway.Layer, error) {
	top, err := t.top(vm)
	if err != nil {
		return gateway.Layer{}, err
	}
	chain, err := t.Chain(top.ID)
	if err != nil {
		return gateway.Layer{}, err
	}
	var need int64
	parts := make([]disk.Part, len(chain))
	for i, l := range chain {
		need += disk.Occupied(t.Path(l))
		parts[i] = disk.Part{File: t.Path(l), Format: l.Format}
	}
	if err := disk.CheckRoom(filepath.Join(t.dir, diskDir), need); err != nil {
		return gateway.Layer{}, err
	}
	l := newLayer("", vm, gateway.Raw, chain[0].Bytes)
	if err := t.reserveRoot(ctx, l); err != nil {
		return gateway.Layer{}, err
	}
	err = disk.Flatten(ctx, t.Path(l), parts)
	if err == nil {
		err = t.syncDir()
	}
	t.at("file")
	if err != nil {
		return gateway.Layer{}, errors.Join(err, t.removeLayer(context.WithoutCancel(ctx), l.ID))
	}
	return l, t.Finish(ctx, l.ID)
}

// Shorten records that a layer needs nothing of those between it and base, which is below it: QEMU has
// copied that into it, and has flushed it. Nothing writes to it any more. Errors: KindInvalid when base
// is not below it.
func (t *Tree) Shorten(ctx context.Context, id, base gateway.LayerID) error {
	chain, err := t.Chain(id)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(chain[1:], func(l gateway.Layer) bool { return l.ID == base }) {
		return gateway.Invalid("the layer %s is not over %s", id, base)
	}
	if err := durable.Sync(t.Path(chain[0])); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.all[id]
	if !ok {
		return missing(id)
	}
	l.Parent = base
	err = t.put(ctx, l)
	t.at("shortened")
	return err
}

// Push puts a new layer on the disk of a VM: what was there so far never changes any more. pivot has
// the running domain write to the file at path; it is nil when the VM is off. When pivot fails and
// libvirt has certainly refused, refused reports true for its error, and nothing is left; otherwise
// the layer is Pending.
func (t *Tree) Push(ctx context.Context, vm gateway.ID, pivot func(path string) error, refused func(error) bool) (gateway.Layer, error) {
	top, err := t.top(vm)
	if err != nil {
		return top, err
	}
	l, err := t.Reserve(ctx, top, vm, top.Bytes)
	if err != nil {
		return l, err
	}
	if err := t.Make(ctx, l.ID, false); err != nil {
		return l, errors.Join(err, t.removeLayer(context.WithoutCancel(ctx), l.ID))
	}
	if pivot != nil {
		err := pivot(t.Path(l))
		t.at("pivot")
		if err != nil && refused(err) {
			err = errors.Join(err, t.removeLayer(context.WithoutCancel(ctx), l.ID))
		}
		if err != nil {
			return l, err
		}
	}
	return l, t.Finish(ctx, l.ID)
}

// top returns the layer that a VM's record names. It fails with KindUnavailable while the next one is
// Pending.
func (t *Tree) top(vm gateway.ID) (gateway.Layer, error) {
	if l, ok := t.Pending(vm); ok {
		return l, gateway.Errorf(gateway.KindUnavailable, "the disk of the VM is being changed over to the layer %s", l.ID).
			WithHint("Try again in a moment.")
	}
	id, _ := t.vms.Disk(vm)
	return t.get(id)
}

// Finish names a layer, whose file exists, in the record of its VM, and records that it is ready.
func (t *Tree) Finish(ctx context.Context, id gateway.LayerID) error {
	l, err := t.get(id)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // a guest may write to it already
	if err := t.vms.SetDisk(ctx, l.VM, id); err != nil {
		return fmt.Errorf("record disk: %w", err)
	}
	t.at("named")
	return t.Done(ctx, id)
}

// removeFile removes the file of a layer, and the draft of it.
func (t *Tree) removeFile(l gateway.Layer) error {
	for _, path := range []string{t.Path(l), disk.Draft(t.Path(l))} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove layer: %w", err)
		}
	}
	return t.syncDir()
}

// Leave marks the layers of a VM that is removed and that others are over: Sweep is to remove them once
// nothing is.
func (t *Tree) Leave(ctx context.Context, vm gateway.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var left []gateway.Layer
	for _, l := range t.all {
		if l.VM == vm && l.State == gateway.LayerReady {
			l.State = gateway.LayerLeft
			left = append(left, l)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return t.put(ctx, left...)
}

// Get returns a layer. KindNotFound: there is none.
func (t *Tree) Get(id gateway.LayerID) (gateway.Layer, error) { return t.get(id) }
