package vmhost

import (
	"archive/tar"
	"cmp"
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
	"lodge/vmhost/libvirt"
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

// Changes returns what was changed in a VM from one moment to another. The files of a VM that is off,
// and those of a checkpoint, are read by a guest of their own (see reader); it is ended when the VM is
// started. KindNotFound: there is no such checkpoint. KindConflict: the VM is neither on nor off, it is
// started meanwhile, or its image has no list of what it contained.
func (h *Host) Changes(ctx context.Context, id gateway.ID, q gateway.ChangesQuery) (gateway.Changes, error) {
	from, err := h.moment(id, q.From)
	if err != nil {
		return gateway.Changes{}, err
	}
	to, err := h.moment(id, q.To)
	if err != nil {
		return gateway.Changes{}, err
	}
	m, _ := h.dir.ByID(id)
	var was examined
	if from != nil {
		if was, err = h.inspect(ctx, id, from); err != nil {
			return gateway.Changes{}, err
		}
	}
	if to != nil && !q.Text {
		now, err := h.inspect(ctx, id, to)
		if err != nil {
			return gateway.Changes{}, err
		}
		return between(m, from, was, now)
	}
	var c gateway.Changes
	var after map[string][]byte
	err = h.examine(ctx, id, to, func(m gateway.VM, g shell) error {
		now, err := inspect(g)
		if err != nil {
			return err
		}
		if c, err = between(m, from, was, now); err != nil || !q.Text {
			return err
		}
		if from == nil {
			c.Text, err = texts(g, c.Files)
			return err
		}
		return g.runAll(files(written(c.Files), &after)...)
	})
	if err != nil || !q.Text || from == nil {
		return c, err
	}
	var before map[string][]byte
	err = h.examine(ctx, id, from, func(_ gateway.VM, g shell) error { return g.runAll(files(had(was, c.Files), &before)...) })
	c.Text = unified(c.Files, from.Name, before, cmp.Or(q.To, "now"), after)
	return c, err
}

// moment is the checkpoint that has a name; nil for none, which is the image or now.
func (h *Host) moment(id gateway.ID, name string) (*gateway.Checkpoint, error) {
	if _, ok := h.dir.ByID(id); !ok {
		return nil, errGone()
	}
	if name == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	c, err := h.checkpoints.Find(id, name)
	return &c, err
}

// between compares what was found at two moments, the first of which is the image if from is nil.
func between(m gateway.VM, from *gateway.Checkpoint, was, now examined) (gateway.Changes, error) {
	if from == nil {
		return now.sinceImage(m)
	}
	c := inventory.Compare(was.Now, now.Now, seed.Paths())
	c.Ports = []gateway.OpenPort{} // those of a disk are unknown
	return c, nil
}

// examine calls f with a way to run commands on the files that a VM has now, or had at a checkpoint.
// Few VMs are examined at the same time.
func (h *Host) examine(ctx context.Context, id gateway.ID, at *gateway.Checkpoint, f func(gateway.VM, shell) error) error {
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
	m, ok := h.dir.ByID(id)
	if !ok {
		return errGone()
	}
	if at != nil {
		g := &reader{host: h, ctx: ctx, vm: m, disk: at.Layer, held: func() error { return nil }}
		return g.explain(f(m, g))
	}
	switch state := h.Status(ctx, id).State; state {
	case "running":
		g, err := h.logIn(ctx, m)
		if err != nil {
			return err
		}
		defer g.close()
		return g.explain(f(m, g))
	case "stopped":
		return h.examineOff(ctx, id, f)
	default:
		return gateway.Errorf(gateway.KindConflict, "%s is %s", m.Name, state).WithHint("Its files can be read while it runs, and while it is off: lodge ls")
	}
}

// examineOff reads the disk of a VM that is off. Nothing else happens to the VM meanwhile: a start waits
// until the guest that reads has been ended.
func (h *Host) examineOff(ctx context.Context, id gateway.ID, f func(gateway.VM, shell) error) error {
	w, err := h.begin(ctx, id)
	if err != nil {
		return err
	}
	return w.inTurn(ctx, func() error {
		m, ok := h.dir.ByID(id)
		if !ok {
			return errGone()
		}
		if m.Rollback != nil {
			return errRolling()
		}
		held := func() error {
			if h.wants(id, gateway.Stopped) && w.verbs.Load() == 0 {
				return nil
			}
			return gateway.Errorf(gateway.KindConflict, "%s is not at rest any more", m.Name).WithHint("Try again in a moment.")
		}
		state, err := h.virt.State(ctx, id)
		if err == nil {
			err = held()
		}
		if err == nil && (state == libvirt.Running || state == libvirt.Paused || state == libvirt.PausedFull || state == libvirt.Suspended) {
			err = gateway.Errorf(gateway.KindConflict, "%s has not ended yet", m.Name).WithHint("Try again in a moment.")
		}
		if err != nil {
			return err
		}
		if err := h.lend(m.Disk); err != nil {
			return err
		}
		g := &reader{host: h, ctx: ctx, vm: m, disk: m.Disk, held: held}
		return g.explain(f(m, g))
	})
}

// examined is what was found in a VM at one moment.
type examined struct {
	Image   inventory.Inventory // what its image contained
	NoImage bool                // there is no list of that
	Now     inventory.Inventory
}

// inspect lists what a VM and its image have.
func inspect(g shell) (found examined, err error) {
	err = g.runAll(
		command{line: "cat " + inventory.ImageInventory, read: func(r io.Reader) (err error) {
			found.Image, err = inventory.Read(r)
			if found.NoImage = errors.Is(err, inventory.ErrNone); found.NoImage {
				return nil
			}
			return err
		}},
		command{line: "sh -s", stdin: inventory.Script, read: func(r io.Reader) (err error) {
			found.Now, err = inventory.Read(r)
			return err
		}},
	)
	return found, err
}

// sinceImage compares a VM with its image.
func (e examined) sinceImage(m gateway.VM) (gateway.Changes, error) {
	if e.NoImage {
		return gateway.Changes{}, gateway.Errorf(gateway.KindConflict, "the image of %s has no list of what it contained", m.Name).
			WithHint("It was built by an earlier version of Lodge. VMs of a new one have it: lodge image build %s", m.Image)
	}
	return inventory.Compare(e.Image, e.Now, seed.Paths()), nil
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

// had are the paths of files that were changed or removed, and whose content was small before.
func had(was examined, all []gateway.FileChange) []string {
	var paths []string
	for _, f := range all {
		before, ok := was.Now.Files[f.Path]
		if ok && before.Type == 'f' && before.Bytes <= inventory.MaxFileBytes && len(paths) < maxTexts {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// files is the command that reads files, or none for no paths. Those that cannot be read are left out.
func files(paths []string, contents *map[string][]byte) []command {
	if len(paths) == 0 {
		return nil
	}
	return []command{archive(paths, func(r io.Reader) (err error) {
		*contents, err = unpack(r)
		return err
	})}
}

// archive is the command that writes files into an archive.
func archive(paths []string, read func(io.Reader) error) command {
	return command{
		line:  "tar -c -P --format=gnu --no-recursion --ignore-failed-read --null --verbatim-files-from -T - -f -",
		stdin: []byte(strings.Join(paths, "\x00") + "\x00"),
		read:  read,
	}
}

// imageFiles is the command that reads what files had in the image.
func imageFiles(contents *map[string][]byte) command {
	return command{line: "cat " + inventory.ImageFiles, read: func(r io.Reader) error {
		z, err := gzip.NewReader(r)
		if err != nil {
			return err
		}
		*contents, err = unpack(z)
		return err
	}}
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

// texts is a unified diff of what was changed since the image.
func texts(g shell, all []gateway.FileChange) (string, error) {
	var image, now map[string][]byte
	if err := g.runAll(append(files(written(all), &now), imageFiles(&image))...); err != nil {
		return "", err
	}
	return unified(all, "image", image, "now", now), nil
}

// unified is a unified diff of the text files among all. Files that may hold secrets are left out.
func unified(all []gateway.FileChange, was string, before map[string][]byte, is string, after map[string][]byte) string {
	var text strings.Builder
	for _, f := range all {
		old, had := before[f.Path]
		now, has := after[f.Path]
		read := (had || f.Change == gateway.Added) && (has || f.Change == gateway.Gone)
		if f.Type == "file" && read && inventory.Shows(f.Path, old) && inventory.Shows(f.Path, now) {
			text.Write(diff.Diff(was+f.Path, old, is+f.Path, now))
		}
	}
	return text.String()
}
