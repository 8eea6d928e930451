// Package layers keeps the disks of VMs: trees of files, of which only the uppermost are written to.
//
// A layer is a row of the record store and a file (gateway.Layer). Below a VM's first layer is that
// of an image or of a template, which their packages publish; a VM's own are in the directory of
// disks. What counts on a layer is derived, never stored: its children, and the records of VMs that
// name it. Sweep removes the layers on which nothing counts.
//
// A new layer is made in steps, each of them synced before the next:
//
//  1. intent: the row, in state "making"
//  2. file: written under another name, then renamed
//  3. pivot, when a running domain changes over: libvirt's DomainSnapshotCreateXML with DISK_ONLY,
//     REUSE_EXT, ATOMIC and NO_METADATA
//  4. name: the VM's record names the layer
//  5. done: the row, in state "ready"
//
// (A new VM's record names its layer before the file exists, and is "not ready" until then.) After a
// crash Recover compares the rows in state "making" with records and files:
//
//   - The record names it: it becomes ready.
//   - It has no file, or nothing names its parent: row and file are removed. This is the old state.
//   - Its file is over the layer that the record names: libvirt may have been asked, and may still do
//     it, so the file stays (Pending). Its caller looks at the domain. If that writes to the layer, or
//     is off, Finish names it: an overlay of which nothing was written has the content of its parent.
//     If the domain still writes to the parent, the caller asks libvirt again.
//
// The disk of a running VM is merged by its caller: QEMU copies the content of the layers in between into
// the uppermost, which a further layer then covers. Shorten records it, as the last step: until then the
// longer chain on record has the same content. A header may name a layer further below than the record
// does; the record counts, and is what QEMU is given.
//
// Removal: the row in state "removing", the file, the row. A crash in between is finished by Recover.
//
// This package never writes to a layer, never removes a layer with children, and never removes a file
// that has no row: the database may have been lost. It never talks to libvirt.
package layers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// Records keep the rows. Each call returns once the change is synced; gateway/store is the
// implementation.
type Records interface {
	// All returns every layer, each after its parent.
	All(ctx context.Context) ([]gateway.Layer, error)
	// Put writes all of the layers, or none: new ones, and the states and parents of those that exist.
	Put(ctx context.Context, layers ...gateway.Layer) error
	// Delete deletes a layer that has no children.
	Delete(ctx context.Context, id gateway.LayerID) error
}

// VMs are the records of the VMs.
type VMs interface {
	// Disk returns the layer that a VM's record names; ok is false when there is no such VM.
	Disk(vm gateway.ID) (layer gateway.LayerID, ok bool)
	// SetDisk records it, synced.
	SetDisk(ctx context.Context, vm gateway.ID, layer gateway.LayerID) error
}

// FlattenAt is the number of layers in a chain from which its disk is to be flattened, when the VM
// is off: each layer costs QEMU an open file, memory for its tables, and time at each first read.
const FlattenAt = 16

// diskDir has the files that this package makes, relative to the state directory.
const diskDir = "disks"

// Tree has the layers of a host. It is safe for concurrent use. Its caller ensures that no layer is
// swept between Reserve and the record that names it.
type Tree struct {
	records Records
	vms     VMs
	dir     string
	at      func(point string) // tests crash in it

	importing sync.Mutex // one import at a time
	mu        sync.Mutex // held while rows change
	all       map[gateway.LayerID]gateway.Layer
}

// Open reads the layers of the state directory dir.
func Open(ctx context.Context, records Records, vms VMs, dir string) (*Tree, error) {
	rows, err := records.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("read layers: %w", err)
	}
	t := &Tree{records: records, vms: vms, dir: dir, at: func(string) {}, all: map[gateway.LayerID]gateway.Layer{}}
	for _, l := range rows {
		t.all[l.ID] = l
	}
	return t, nil
}

// Path is the absolute path of a layer's file.
func (t *Tree) Path(l gateway.Layer) string { return filepath.Join(t.dir, l.File) }

// Chain returns a disk's layers, the uppermost first. It fails with KindNotFound when one has no
// row.
func (t *Tree) Chain(id gateway.LayerID) ([]gateway.Layer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var chain []gateway.Layer
	for next := id; len(chain) <= len(t.all); {
		l, ok := t.all[next]
		if !ok {
			return nil, missing(next)
		}
		if chain = append(chain, l); l.Parent == "" {
			return chain, nil
		}
		next = l.Parent
	}
	return nil, gateway.Invalid("the layers below %s form a loop", id)
}

func missing(id gateway.LayerID) error {
	return gateway.Errorf(gateway.KindNotFound, "there is no layer %q", id)
}

// All returns the layers, ordered by their creation.
func (t *Tree) All() []gateway.Layer {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]gateway.Layer, 0, len(t.all))
	for _, l := range t.all {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b gateway.Layer) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Has reports whether a layer has this file, which is an absolute path.
func (t *Tree) Has(path string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.all {
		if t.Path(l) == path {
			return true
		}
	}
	return false
}

// put writes rows, to disk first. The caller holds t.mu.
func (t *Tree) put(ctx context.Context, layers ...gateway.Layer) error {
	if err := t.records.Put(ctx, layers...); err != nil {
		return fmt.Errorf("record layer: %w", err)
	}
	for _, l := range layers {
		t.all[l.ID] = l
	}
	return nil
}

// setState records the state of a layer.
func (t *Tree) setState(ctx context.Context, id gateway.LayerID, state gateway.LayerState) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.all[id]
	if !ok {
		return missing(id)
	}
	if l.State == state {
		return nil
	}
	l.State = state
	return t.put(ctx, l)
}

// get returns a layer.
func (t *Tree) get(id gateway.LayerID) (gateway.Layer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.all[id]
	if !ok {
		return l, missing(id)
	}
	return l, nil
}

// exists reports whether a layer's file does.
func (t *Tree) exists(l gateway.Layer) bool {
	_, err := os.Stat(t.Path(l))
	return err == nil
}

// syncDir brings the names in the directory of disks to disk.
func (t *Tree) syncDir() error { return durable.Sync(filepath.Join(t.dir, diskDir)) }

// now is the time of a new layer.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }
