package vmhost

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt/libvirttest"
)

// publishImage writes the image "tiny" as a build does, with an edition of its disk.
func publishImage(t *testing.T, h *Host, edition string) image.Image {
	t.Helper()
	dir := h.cfg.imageDir()
	raw := filepath.Join(dir, "disk")
	libvirttest.TinyDiskWith(t, raw, edition)
	sum, err := disk.Sum(t.Context(), raw)
	gatewaytest.Must(t, err)
	stem := image.ContentName("tiny", sum)
	part := func(ext string) map[string]any {
		info, err := os.Stat(filepath.Join(dir, stem+ext))
		gatewaytest.Must(t, err)
		return map[string]any{"file": stem + ext, "bytes": info.Size()}
	}
	gatewaytest.Must(t, errors.Join(os.Rename(raw, filepath.Join(dir, stem+".raw")), os.Chmod(filepath.Join(dir, stem+".raw"), 0o444)))
	for _, ext := range []string{".vmlinuz", ".initrd"} {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, stem+ext), []byte("none"), 0o600))
	}
	text, err := json.Marshal(map[string]any{"name": "tiny", "sum": sum, "disk": part(".raw"), "kernel": part(".vmlinuz"), "initrd": part(".initrd")})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "tiny.json"), text, 0o600))
	img, err := image.Open(dir, "tiny")
	if err != nil || !img.Immutable {
		t.Fatalf("%+v, %v", img, err)
	}
	return img
}

// made claims and makes the disk of a VM that boots the image.
func made(t *testing.T, h *Host, name string, img image.Image) gateway.VM {
	t.Helper()
	m, err := h.claim(t.Context(), gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Size: gateway.Size{DiskGiB: 2}, Ready: true,
	}, &source{img: img})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, errors.Join(h.layers.Make(t.Context(), m.Disk, true), h.layers.Done(t.Context(), m.Disk)))
	return m
}

func names(t *testing.T, dir, pattern string) (names []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	gatewaytest.Must(t, err)
	for _, path := range found {
		names = append(names, filepath.Base(path))
	}
	return names
}

// The files of an image stay below the disks of its VMs when it is built anew, and go with the last
// of them. A VM's disk is an overlay: nothing is copied.
func TestReplacedImage(t *testing.T) {
	h := newHost(t)
	first := publishImage(t, h, "first")
	one, two := made(t, h, "one", first), made(t, h, "two", first)
	second := publishImage(t, h, "second")
	three := made(t, h, "three", second)
	for _, m := range []gateway.VM{one, two, three} {
		want := map[bool]string{true: first.Disk, false: second.Disk}[m.Name != "three"]
		chain, err := h.layers.Chain(m.Disk)
		gatewaytest.Must(t, err)
		if base, err := disk.Base(h.layers.Path(chain[0])); err != nil || base != want || len(chain) != 2 || h.layers.Path(chain[1]) != want {
			t.Errorf("%s: over %q, %v, chain %v; want %s", m.Name, base, err, chain, want)
		}
	}
	if raw := names(t, h.cfg.diskDir(), "*"); len(raw) != 3 {
		t.Errorf("disks: %v", raw)
	}
	old := strings.TrimSuffix(filepath.Base(first.Disk), ".raw")
	for _, step := range []struct {
		vm   gateway.VM
		left []string
	}{
		{three, []string{old + ".initrd", old + ".raw", old + ".vmlinuz"}},
		{one, []string{old + ".initrd", old + ".raw", old + ".vmlinuz"}},
		{two, nil},
	} {
		gatewaytest.Must(t, h.sweepLayers(t.Context(), step.vm.ID))
		gatewaytest.Must(t, h.dir.Delete(t.Context(), step.vm.ID))
		if diff := cmp.Diff(step.left, names(t, h.cfg.imageDir(), old+"*")); diff != "" {
			t.Errorf("without %s (-want +got):\n%s", step.vm.Name, diff)
		}
	}
	if left := h.layers.All(); len(left) != 0 || len(names(t, h.cfg.diskDir(), "*")) != 0 || len(names(t, h.cfg.imageDir(), "tiny-*")) != 3 {
		t.Errorf("left: %v, %v, %v", left, names(t, h.cfg.diskDir(), "*"), names(t, h.cfg.imageDir(), "tiny-*"))
	}
	if _, err := h.claim(t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "late"}, Size: gateway.Size{DiskGiB: 2}}, &source{img: first}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("an image that was replaced meanwhile: %v", err)
	}
}

// The disks of a VM whose record was lost stay.
func TestDiskWithoutARecordStays(t *testing.T) {
	h := newHost(t)
	lost := made(t, h, "lost", publishImage(t, h, "only"))
	gatewaytest.Must(t, h.dir.Delete(t.Context(), lost.ID))
	gatewaytest.Must(t, h.sweepLayers(t.Context(), gateway.ID{}))
	if chain, err := h.layers.Chain(lost.Disk); err != nil || len(chain) != 2 || len(names(t, h.cfg.diskDir(), "*.qcow2")) != 1 {
		t.Errorf("chain %v, %v", chain, err)
	}
}

// An image that may be replaced in place is copied for its first VM, once, and refused if its disk
// is not that of its manifest.
func TestImportedImage(t *testing.T) {
	h := newHost(t)
	img := newImage(t)
	one, two := made(t, h, "one", img), made(t, h, "two", img)
	if parent(t, h, one) != parent(t, h, two) || len(names(t, h.cfg.diskDir(), "*.raw")) != 1 {
		t.Errorf("over %s and %s: %v", parent(t, h, one), parent(t, h, two), names(t, h.cfg.diskDir(), "*"))
	}
	gatewaytest.Must(t, errors.Join(h.sweepLayers(t.Context(), one.ID), h.dir.Delete(t.Context(), one.ID)))
	gatewaytest.Must(t, os.WriteFile(img.Disk, []byte("another"), 0o600))
	made(t, h, "three", img) // as in the manifest
	for _, m := range h.dir.All() {
		gatewaytest.Must(t, errors.Join(h.sweepLayers(t.Context(), m.ID), h.dir.Delete(t.Context(), m.ID)))
	}
	if left := names(t, h.cfg.diskDir(), "*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	_, err := h.claim(t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "four"}, Size: gateway.Size{DiskGiB: 2}}, &source{img: img})
	if e, ok := errors.AsType[*gateway.Error](err); !ok || e.Kind != gateway.KindConflict || !strings.Contains(e.Hint, "lodge image build") {
		t.Errorf("a changed disk: %v", err)
	}
}

// A layer goes by a sweep alone: the disk of another VM may be over it.
func TestRemoveFilesKeepsLayers(t *testing.T) {
	blog := newVM("blog", gateway.Running)
	h := newHost(t, blog)
	for _, ext := range []string{".seed", ".memory", ".img.new"} {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(h.cfg.diskDir(), blog.ID.String()+ext), nil, 0o600))
	}
	gatewaytest.Must(t, h.removeFiles(blog.ID))
	if diff := cmp.Diff([]string{blog.ID.String() + ".img"}, names(t, h.cfg.diskDir(), "*")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	gatewaytest.Must(t, h.sweepLayers(t.Context(), blog.ID))
	if left := names(t, h.cfg.diskDir(), "*"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
