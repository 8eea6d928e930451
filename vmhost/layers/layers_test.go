package layers_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/vmhost/layers"
)

// vms are records in memory.
type vms map[gateway.ID]gateway.LayerID

// Disk implements layers.VMs.
func (v vms) Disk(id gateway.ID) (gateway.LayerID, bool) {
	layer, ok := v[id]
	return layer, ok
}

// SetDisk implements layers.VMs.
func (v vms) SetDisk(_ context.Context, id gateway.ID, layer gateway.LayerID) error {
	v[id] = layer
	return nil
}

// image is a layer without a row, whose file is in dir.
func image(t *testing.T, dir string, bytes int64) gateway.Layer {
	t.Helper()
	gatewaytest.Must(t, errors.Join(os.MkdirAll(filepath.Join(dir, "images"), 0o700), os.MkdirAll(filepath.Join(dir, "disks"), 0o700)))
	l := gateway.Layer{ID: "image/tiny-1", File: "images/tiny-1.raw", Format: gateway.Raw, State: gateway.LayerReady}
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, l.File), nil, 0o444))
	gatewaytest.Must(t, os.Truncate(filepath.Join(dir, l.File), bytes))
	return l
}

func open(t *testing.T, records layers.Records, v vms, dir string) *layers.Tree {
	t.Helper()
	tree, err := layers.Open(t.Context(), records, v, dir)
	gatewaytest.Must(t, errors.Join(err, tree.Recover(t.Context())))
	return tree
}

func TestReserve(t *testing.T) {
	dir, blog := t.TempDir(), gateway.NewID()
	tree := open(t, new(gatewaytest.Layers), vms{}, dir)
	base := image(t, dir, 3<<29)
	for name, row := range map[string]struct {
		over  gateway.Layer
		bytes int64
		kind  gateway.Kind
	}{
		"too small":         {base, 1 << 30, gateway.KindInvalid},
		"no such image":     {gateway.Layer{ID: "image/x", File: "images/x.raw", Format: gateway.Raw}, 2 << 30, gateway.KindNotFound},
		"another VM's file": {gateway.Layer{ID: "x", VM: blog, File: base.File, Format: gateway.Raw}, 2 << 30, gateway.KindNotFound},
	} {
		if _, err := tree.Reserve(t.Context(), row.over, blog, row.bytes); gateway.KindOf(err) != row.kind || len(tree.All()) != 0 {
			t.Errorf("%s: %v, %v", name, err, tree.All())
		}
	}
	l, err := tree.Reserve(t.Context(), base, blog, 2<<30)
	if err != nil || l.Parent != base.ID || l.State != gateway.LayerMaking || !tree.Has(filepath.Join(dir, base.File)) {
		t.Errorf("%+v, %v", l, err)
	}
	if err := tree.Remove(t.Context(), base.ID); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("a layer with a child was removed: %v", err)
	}
	if _, err := tree.Chain("none"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("no chain: %v", err)
	}
	if err := tree.Make(t.Context(), "none", false); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("no layer: %v", err)
	}
}

// On a full disk nothing is left of a layer that could not be made, and the VM keeps its disk.
func TestFullDisk(t *testing.T) {
	dir, blog := sandboxtest.SmallDisk(t, 4<<20), gateway.NewID()
	v := vms{}
	tree := open(t, new(gatewaytest.Layers), v, dir)
	l, err := tree.Reserve(t.Context(), image(t, dir, 1<<20), blog, 1<<20)
	gatewaytest.Must(t, err)
	v[blog] = l.ID
	gatewaytest.Must(t, errors.Join(tree.Make(t.Context(), l.ID, false), tree.Done(t.Context(), l.ID)))
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "images", "tiny-2.raw"), make([]byte, 1<<20), 0o600))
	fillUp(t, filepath.Join(dir, "filler"))
	if _, err := tree.Push(t.Context(), blog, nil, nil); !durable.IsFull(err) {
		t.Errorf("push: %v", err)
	}
	if _, err := tree.Flatten(t.Context(), blog); gateway.KindOf(err) != gateway.KindNoSpace {
		t.Errorf("flatten: %v", err)
	}
	room := func() error { return nil }
	if _, err := tree.Import(t.Context(), "image/tiny-2", filepath.Join(dir, "images", "tiny-2.raw"), room, func(string) error { return nil }); !durable.IsFull(err) {
		t.Errorf("import: %v", err)
	}
	gatewaytest.Must(t, tree.Recover(t.Context()))
	entries, err := os.ReadDir(filepath.Join(dir, "disks"))
	if err != nil || len(entries) != 1 || len(tree.All()) != 2 || v[blog] != l.ID {
		t.Errorf("left: %v, %v, %v", entries, err, tree.All())
	}
}

// fillUp writes until the disk is full.
func fillUp(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	gatewaytest.Must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !durable.IsFull(err) {
		t.Fatal(err)
	}
}

// A copy that check refuses does not stay, and the next import makes another.
func TestImportOfAnotherContent(t *testing.T) {
	dir := t.TempDir()
	tree := open(t, new(gatewaytest.Layers), vms{}, dir)
	from := filepath.Join(dir, image(t, dir, 1<<20).File)
	room := func() error { return nil }
	if l, err := tree.Import(t.Context(), "image/x", from, room, func(string) error { return os.ErrInvalid }); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("%+v, %v", l, err)
	}
	copied := ""
	l, err := tree.Import(t.Context(), "image/x", from, room, func(path string) error {
		copied = path
		return nil
	})
	if info, statErr := os.Stat(tree.Path(l)); err != nil || statErr != nil || tree.Path(l) != copied || info.Mode() != 0o444 {
		t.Errorf("%+v, %v, %v", l, err, statErr)
	}
	gatewaytest.Must(t, os.WriteFile(from+"2", nil, 0o600)) // another content is not read for the same ID
	if again, err := tree.Import(t.Context(), "image/x", from+"2", room, nil); err != nil || again.File != l.File {
		t.Errorf("again: %+v, %v", again, err)
	}
}
