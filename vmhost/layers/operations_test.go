package layers_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// image publishes a new image now and then, and returns the newest.
func (m *model) image(t *testing.T) (gateway.Layer, content) {
	t.Helper()
	if m.images == 0 || m.rand.IntN(8) == 0 {
		m.images++
		raw := make([]byte, blocks*blockBytes/2) // smaller than the disks
		for i := range blocks / 2 {
			raw[i*blockBytes] = byte(m.images)
		}
		gatewaytest.Must(t, os.WriteFile(filepath.Join(m.dir, "images", fmt.Sprintf("tiny-%d.raw", m.images)), raw, 0o600))
	}
	var has content
	for i := range blocks / 2 {
		has[i] = byte(m.images)
	}
	name := fmt.Sprintf("tiny-%d", m.images)
	if m.images%2 == 0 { // one that QEMU may not use as it is
		l, err := m.tree.Import(t.Context(), gateway.LayerID("image/"+name), filepath.Join(m.dir, "images", name+".raw"), func() error { return nil }, func(string) error { return nil })
		gatewaytest.Must(t, err)
		return l, has
	}
	return gateway.Layer{ID: gateway.LayerID("image/" + name), File: "images/" + name + ".raw", Format: gateway.Raw, State: gateway.LayerReady}, has
}

func (m *model) create(t *testing.T, id gateway.ID) error {
	t.Helper()
	image, has := m.image(t)
	return m.begin(t, id, image, has)
}

// begin makes a VM over a layer.
func (m *model) begin(t *testing.T, id gateway.ID, over gateway.Layer, has content) error {
	t.Helper()
	l, err := m.tree.Reserve(t.Context(), over, id, blocks*blockBytes)
	if err != nil {
		return err
	}
	v := &vm{disk: l.ID, has: has}
	m.vms[id] = v
	if err := m.tree.Make(t.Context(), l.ID, false); err != nil {
		return err
	}
	v.ready = true
	return m.tree.Done(t.Context(), l.ID)
}

// write has the guest write, or somebody to the disk of a VM that is off.
func (m *model) write(t *testing.T, id gateway.ID) error {
	t.Helper()
	v := m.vms[id]
	file := v.domain
	if file == "" {
		file = m.path(v.disk)
	}
	block, b := m.rand.IntN(blocks), byte(m.rand.IntN(256))
	v.has[block] = b
	format := map[bool]string{true: "raw", false: "qcow2"}[filepath.Ext(file) == ".raw"]
	out, err := exec.CommandContext(t.Context(), "qemu-io", "-t", "unsafe", "-f", format,
		"-c", fmt.Sprintf("write -q -P %d %d 512", b, block*blockBytes), file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("write to %s: %w: %s", file, err, out)
	}
	return nil
}

// errLate is that of a call to libvirt which was not answered in time.
var errLate = errors.New("libvirtd did not answer")

func (m *model) push(t *testing.T, id gateway.ID) error {
	t.Helper()
	v := m.vms[id]
	before, has := v.disk, v.has
	var pivot func(string) error
	if v.domain != "" {
		outcome := m.rand.IntN(4)
		pivot = func(path string) error {
			switch outcome {
			case 0: // it will not be done
				return errLate
			case 1: // it was done
				v.domain = path
				return errLate
			case 2:
				return os.ErrInvalid
			default:
				v.domain = path
				return nil
			}
		}
	}
	_, err := m.tree.Push(t.Context(), id, pivot, func(err error) bool { return errors.Is(err, os.ErrInvalid) })
	switch {
	case errors.Is(err, os.ErrInvalid):
		return m.unchanged(v, before)
	case errors.Is(err, errLate):
		if _, err := m.tree.Push(t.Context(), id, pivot, nil); gateway.KindOf(err) != gateway.KindUnavailable {
			t.Errorf("a second layer: %v", err)
		}
		return m.settle(t, id)
	case err == nil:
		m.checkpoints[before] = has
	}
	return err
}

func (m *model) unchanged(v *vm, before gateway.LayerID) error {
	if v.disk != before {
		return fmt.Errorf("the disk became %s", v.disk)
	}
	return nil
}

// settle finishes what is pending, as the worker of a VM does.
func (m *model) settle(t *testing.T, id gateway.ID) error {
	t.Helper()
	l, ok := m.tree.Pending(id)
	if !ok {
		return nil
	}
	v := m.vms[id]
	if v.domain != "" && v.domain != m.tree.Path(l) {
		if m.rand.IntN(2) == 0 { // later: the guest goes on
			if err := m.write(t, id); err != nil {
				return err
			}
		}
		v.domain = m.tree.Path(l)
	}
	return m.tree.Finish(t.Context(), l.ID)
}

func (m *model) flatten(t *testing.T, id gateway.ID) error {
	t.Helper()
	v := m.vms[id]
	if v.domain != "" {
		return nil
	}
	l, err := m.tree.Flatten(t.Context(), id)
	if err != nil {
		return err
	}
	if chain, err := m.tree.Chain(v.disk); err != nil || len(chain) != 1 || v.disk != l.ID {
		t.Errorf("flattened to %v, %v", chain, err)
	}
	return m.sweep(t)
}

// merge has QEMU copy what is between the uppermost and the lowest layer of a running VM into the
// uppermost, and lets the layers in between go.
func (m *model) merge(t *testing.T, id gateway.ID) error {
	t.Helper()
	v := m.vms[id]
	chain, err := m.tree.Chain(v.disk)
	if err != nil || v.domain == "" || len(chain) < 3 {
		return err
	}
	top, base := chain[0], chain[len(chain)-1]
	if err := m.tree.Shorten(t.Context(), base.ID, top.ID); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("a layer over one that is above it: %v", err)
	}
	if m.rand.IntN(3) == 0 { // the host loses power: of what was copied, the header alone is on disk
		v.domain = ""
		return m.rebase(t, top, base, "-u")
	}
	if err := m.rebase(t, top, chain[1], "-u"); err != nil { // qemu-img, unlike QEMU, goes by the header
		return err
	}
	if err := m.rebase(t, top, base, "-t", "unsafe"); err != nil {
		return err
	}
	pivot := func(path string) error {
		v.domain = path
		return nil
	}
	if _, err := m.tree.Push(t.Context(), id, pivot, func(error) bool { return false }); err != nil {
		return err
	}
	if err := m.tree.Shorten(t.Context(), top.ID, base.ID); err != nil {
		return err
	}
	if chain, err := m.tree.Chain(v.disk); err != nil || len(chain) != 3 {
		t.Errorf("merged to %v, %v", chain, err)
	}
	return m.sweep(t)
}

// rebase puts the file of a layer over that of another.
func (m *model) rebase(t *testing.T, l, over gateway.Layer, args ...string) error {
	t.Helper()
	args = append([]string{"rebase", "-f", "qcow2", "-F", string(over.Format), "-b", m.tree.Path(over)}, append(args, m.tree.Path(l))...)
	if out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("rebase: %w: %s", err, out)
	}
	return nil
}

// rollback gives a VM that is off the content of one of its checkpoints.
func (m *model) rollback(t *testing.T, id gateway.ID) error {
	t.Helper()
	v := m.vms[id]
	over, has, ok := m.checkpoint(v)
	if !ok || v.domain != "" {
		return nil
	}
	l, err := m.tree.Reserve(t.Context(), over, id, blocks*blockBytes)
	if err != nil {
		return err
	}
	if err := m.tree.Make(t.Context(), l.ID, false); err != nil {
		return err
	}
	v.or = &has
	if err := m.tree.Finish(t.Context(), l.ID); err != nil {
		return err
	}
	v.has, v.or = has, nil
	return m.sweep(t)
}

// checkpoint returns one in the chain of a VM.
func (m *model) checkpoint(v *vm) (gateway.Layer, content, bool) {
	chain, err := m.tree.Chain(v.disk)
	if err != nil {
		return gateway.Layer{}, content{}, false
	}
	for _, l := range chain[1:] {
		if has, ok := m.checkpoints[l.ID]; ok && m.rand.IntN(2) == 0 {
			return l, has, true
		}
	}
	return gateway.Layer{}, content{}, false
}

// fork makes a VM over a checkpoint of another.
func (m *model) fork(t *testing.T, id gateway.ID) error {
	t.Helper()
	v, ok := m.vms[id]
	if !ok || len(m.vms) >= modelVMs {
		return nil
	}
	over, has, ok := m.checkpoint(v)
	if !ok {
		return nil
	}
	return m.begin(t, gateway.NewID(), over, has)
}

func (m *model) start(_ *testing.T, id gateway.ID) error {
	v := m.vms[id]
	v.domain = m.path(v.disk)
	return nil
}

func (m *model) stop(_ *testing.T, id gateway.ID) error {
	m.vms[id].domain = ""
	return nil
}

// remove removes a VM with its checkpoints; forks stay.
func (m *model) remove(t *testing.T, id gateway.ID) error {
	t.Helper()
	for _, l := range m.tree.All() {
		if l.VM == id {
			delete(m.checkpoints, l.ID)
		}
	}
	delete(m.vms, id)
	return m.sweep(t)
}

// drop removes a checkpoint.
func (m *model) drop(t *testing.T, id gateway.ID) error {
	t.Helper()
	if l, _, ok := m.checkpoint(m.vms[id]); ok {
		if err := m.tree.Remove(t.Context(), l.ID); gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("a layer with children was removed: %v", err)
		}
		delete(m.checkpoints, l.ID)
	}
	if err := m.tree.Remove(t.Context(), m.vms[id].disk); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("the disk of a VM was removed: %v", err)
	}
	return m.sweep(t)
}

func (m *model) sweep(t *testing.T) error {
	t.Helper()
	return m.tree.Sweep(t.Context(), func(l gateway.Layer) bool { return m.counts(l) || l.State == gateway.LayerMaking })
}

// counts reports whether a VM or a checkpoint counts on a layer.
func (m *model) counts(l gateway.Layer) bool {
	_, ok := m.checkpoints[l.ID]
	for _, v := range m.vms {
		ok = ok || v.disk == l.ID
	}
	return ok
}
