package layers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"lodge/gateway"
)

// Sweep removes every layer that has no child and that keep does not name, until there is none. The
// files of images and templates stay: only their rows are removed.
func (t *Tree) Sweep(ctx context.Context, keep func(gateway.Layer) bool) error {
	var errs []error
	failed := map[gateway.LayerID]bool{}
	for again := true; again; {
		again = false
		for _, l := range t.leaves() {
			if failed[l.ID] || keep(l) {
				continue
			}
			again = true
			if err := t.removeLayer(ctx, l.ID); err != nil {
				failed[l.ID] = true
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// leaves returns the layers without children.
func (t *Tree) leaves() (leaves []gateway.Layer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	parents := map[gateway.LayerID]bool{}
	for _, l := range t.all {
		parents[l.Parent] = true
	}
	for _, l := range t.all {
		if !parents[l.ID] {
			leaves = append(leaves, l)
		}
	}
	return leaves
}

// Remove removes a layer. Errors: KindConflict while it has children or a VM's record names it.
func (t *Tree) Remove(ctx context.Context, id gateway.LayerID) error {
	l, err := t.get(id)
	if err != nil {
		return err
	}
	if named, _ := t.vms.Disk(l.VM); named == id {
		return gateway.Errorf(gateway.KindConflict, "the layer %s is the disk of a VM", id)
	}
	return t.removeLayer(ctx, id)
}

// removeLayer removes a layer that has no children.
func (t *Tree) removeLayer(ctx context.Context, id gateway.LayerID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.all[id]
	if !ok {
		return nil
	}
	for _, other := range t.all {
		if other.Parent == id {
			return gateway.Errorf(gateway.KindConflict, "the layer %s is below %s", id, other.ID)
		}
	}
	if filepath.Dir(l.File) == diskDir { // else it belongs to an image or a template
		l.State = gateway.LayerRemoving
		if err := t.put(ctx, l); err != nil {
			return err
		}
		t.at("removing")
		if err := t.removeFile(l); err != nil {
			return err
		}
		t.at("unlinked")
	}
	if err := t.records.Delete(ctx, id); err != nil {
		return fmt.Errorf("remove layer: %w", err)
	}
	delete(t.all, id)
	return nil
}

// Recover finishes or undoes what a crash has interrupted. Call it once, before anything else.
func (t *Tree) Recover(ctx context.Context) error {
	var errs []error
	for _, l := range t.All() {
		switch named := t.names(l, l.ID); {
		case l.State == gateway.LayerRemoving, l.State == gateway.LayerMaking && !named && !t.pends(l):
			errs = append(errs, t.removeLayer(ctx, l.ID))
		case l.State == gateway.LayerMaking && named && t.exists(l):
			errs = append(errs, t.Done(ctx, l.ID))
		}
	}
	return errors.Join(errs...)
}

// Pending returns the layer of a VM to which its domain may write although the record names the one
// below.
func (t *Tree) Pending(vm gateway.ID) (gateway.Layer, bool) {
	for _, l := range t.All() {
		if l.VM == vm && t.pends(l) {
			return l, true
		}
	}
	return gateway.Layer{}, false
}

func (t *Tree) pends(l gateway.Layer) bool {
	return l.State == gateway.LayerMaking && l.Parent != "" && t.names(l, l.Parent) && t.exists(l)
}

// names reports whether the record of a layer's VM names the layer id.
func (t *Tree) names(l gateway.Layer, id gateway.LayerID) bool {
	if l.VM == (gateway.ID{}) {
		return false
	}
	named, ok := t.vms.Disk(l.VM)
	return ok && named == id
}
