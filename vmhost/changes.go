package vmhost

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"lodge/gateway"
	"lodge/vmhost/inventory"
	"lodge/vmhost/seed"
)

// Limits on what is read from a guest to find its changes.
const (
	inventoryTime = 5 * time.Minute // a guest with 200,000 files under TCG
	inventoryWait = 30 * time.Second
	maxTexts      = 2000     // files whose content is compared, or goes into a recipe
	maxTextBytes  = 32 << 20 // of them together
)

// inventoriesAtOnce is how many guests are examined at the same time.
const inventoriesAtOnce = 2

// Changes returns what was changed in a running VM since its image; with text also what was changed in
// text files. KindConflict: the VM is off, or its image has no list of what it contained.
func (h *Host) Changes(ctx context.Context, id gateway.ID, text bool) (gateway.Changes, error) {
	var c gateway.Changes
	err := h.examine(ctx, id, func(g *guestShell) (err error) {
		if c, err = g.changes(); err == nil && text {
			c.Text, err = g.texts(c.Files)
		}
		return err
	})
	return c, err
}

// Recipe returns cloud-init user data that makes the changes of a running VM to a new one. Errors are
// those of Changes.
func (h *Host) Recipe(ctx context.Context, id gateway.ID) (gateway.Recipe, error) {
	var r gateway.Recipe
	err := h.examine(ctx, id, func(g *guestShell) error {
		c, err := g.changes()
		if err != nil {
			return err
		}
		contents, err := g.files(written(c.Files))
		if err != nil {
			return err
		}
		r, err = inventory.Recipe(h.name(id), c, func(path string) ([]byte, bool) {
			data, ok := contents[path]
			return data, ok
		})
		return err
	})
	return r, err
}

// examine logs in to a running VM, and calls f. Few guests are examined at the same time.
func (h *Host) examine(ctx context.Context, id gateway.ID, f func(*guestShell) error) error {
	m, ok := h.dir.ByID(id)
	if !ok {
		return errGone()
	}
	if state := h.Status(ctx, id).State; state != "running" {
		return gateway.Errorf(gateway.KindConflict, "%s is %s", m.Name, state).WithHint("Its files can be read while it runs: lodge start %s", m.Name)
	}
	busy := time.NewTimer(inventoryWait)
	defer busy.Stop()
	select {
	case h.examining <- struct{}{}:
		defer func() { <-h.examining }()
	case <-busy.C:
		return gateway.Errorf(gateway.KindUnavailable, "other VMs are being examined").WithHint("Try again in a moment.")
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, inventoryTime)
	defer cancel()
	g, err := h.logIn(ctx, m)
	if err != nil {
		return err
	}
	defer g.close()
	return g.explain(f(g))
}

// changes compares the guest with its image.
func (g *guestShell) changes() (gateway.Changes, error) {
	var image, now inventory.Inventory
	read := func(into *inventory.Inventory) func(io.Reader) error {
		return func(r io.Reader) (err error) {
			*into, err = inventory.Read(r)
			return err
		}
	}
	if err := g.run("cat "+inventory.ImageInventory, nil, read(&image)); errors.Is(err, inventory.ErrNone) {
		return gateway.Changes{}, gateway.Errorf(gateway.KindConflict, "the image of %s has no list of what it contained", g.vm.Name).
			WithHint("It was built by an earlier version of Lodge. VMs of a new one have it: lodge image build %s", g.vm.Image).Because(err)
	} else if err != nil {
		return gateway.Changes{}, err
	}
	if err := g.run("sh -s", bytes.NewReader(inventory.Script), read(&now)); err != nil {
		return gateway.Changes{}, err
	}
	return inventory.Compare(image, now, seed.Paths()), nil
}

// written are the paths of files that a recipe writes.
func written(all []gateway.FileChange) []string {
	var paths []string
	for _, f := range all {
		if f.Type == "file" && f.Change != gateway.Gone && f.Bytes <= inventory.MaxFileBytes && len(paths) < maxTexts {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// files reads files of the guest. Those that cannot be read are left out.
func (g *guestShell) files(paths []string) (map[string][]byte, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	names := strings.NewReader(strings.Join(paths, "\x00") + "\x00")
	var contents map[string][]byte
	err := g.run("tar -c -P --format=gnu --no-recursion --ignore-failed-read --null --verbatim-files-from -T - -f -", names, func(r io.Reader) (err error) {
		contents, err = unpack(r)
		return err
	})
	return contents, err
}

// imageFiles reads what files of the guest had in its image.
func (g *guestShell) imageFiles() (contents map[string][]byte, err error) {
	err = g.run("cat "+inventory.ImageFiles, nil, func(r io.Reader) error {
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		contents, err = unpack(z)
		return err
	})
	return contents, err
}

// unpack reads the files of an archive, within limits.
func unpack(r io.Reader) (map[string][]byte, error) {
	contents, left := map[string][]byte{}, int64(maxTextBytes)
	for t := tar.NewReader(io.LimitReader(r, 2*maxTextBytes)); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return contents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg || h.Size > inventory.MaxFileBytes || h.Size > left {
			continue
		}
		data, err := io.ReadAll(t)
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		left -= h.Size
		contents[path.Join("/", h.Name)] = data
	}
}

// texts is a unified diff of the text files among all. Files that may hold secrets are left out.
func (g *guestShell) texts(all []gateway.FileChange) (string, error) {
	now, err := g.files(written(all))
	if err != nil {
		return "", err
	}
	image, err := g.imageFiles()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, f := range all {
		before, was := image[f.Path]
		after, is := now[f.Path]
		read := (was || f.Change == gateway.Added) && (is || f.Change == gateway.Gone)
		if f.Type == "file" && read && inventory.Shows(f.Path, before) && inventory.Shows(f.Path, after) {
			text.Write(diff.Diff("image"+f.Path, before, "now"+f.Path, after))
		}
	}
	return text.String(), nil
}
