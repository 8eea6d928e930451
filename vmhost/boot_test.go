package vmhost

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/accel"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt/libvirttest"
	"lodge/vmhost/seed"
)

// writeImage writes the image "tiny" whose kernel, initramfs and command line contain edition.
func writeImage(t *testing.T, dir, edition string, built time.Time) {
	t.Helper()
	libvirttest.TinyDisk(t, filepath.Join(dir, "tiny.raw"))
	part := func(name, text string) map[string]any {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		return map[string]any{"file": name, "bytes": len(text)}
	}
	text, err := json.Marshal(map[string]any{
		"name": "tiny", "built": built, "cmdline": "cmdline " + edition, "disk": map[string]any{"file": "tiny.raw", "bytes": 1 << 20},
		"kernel": part("tiny.vmlinuz", "kernel "+edition), "initrd": part("tiny.initrd", "initrd "+edition),
	})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "tiny.json"), text, 0o600))
}

// A VM that boots its kernel directly keeps the one whose modules its disk has, whatever becomes of
// the image. QEMU, which is not root, can read it. The copies are removed with the VM.
func TestDirectBootKeepsItsKernel(t *testing.T) {
	blog := newVM("blog", gateway.Running)
	blog.Size, blog.HostKey = gateway.Size{Image: "tiny", DiskGiB: 2, DirectBoot: true}, "ssh-ed25519 AAAA"
	h := newHost(t, blog)
	h.accel = accel.New(accel.TCG, "", h.log)
	blog, _ = h.dir.ByID(blog.ID) // with its address
	writeImage(t, h.cfg.imageDir(), "1", time.Unix(1, 0))
	img, err := image.Open(h.cfg.imageDir(), "tiny")
	gatewaytest.Must(t, err)
	reserve := func() {
		gatewaytest.Must(t, h.reserve(t.Context(), blog, &source{img: img}, func(id gateway.LayerID) error {
			blog.Disk = id
			return disks{h.dir}.SetDisk(t.Context(), blog.ID, id)
		}))
	}
	reserve()
	guest := seed.Guest{VM: blog, HostKeyPEM: []byte("key"), AuthorizedKey: h.login}
	gatewaytest.Must(t, h.makeDisks(t.Context(), guest, source{img: img}))

	writeImage(t, h.cfg.imageDir(), "2", time.Unix(2, 0))
	def, err := h.definition(t.Context(), blog)
	gatewaytest.Must(t, err)
	for path, want := range map[string]string{def.Kernel: "kernel 1", def.Initrd: "initrd 1"} {
		text, err := os.ReadFile(path)
		if info, statErr := os.Stat(path); err != nil || statErr != nil || string(text) != want || info.Mode() != 0o644 {
			t.Errorf("%s: %q, %v, %v; want %q", path, text, info.Mode(), err, want)
		}
	}
	if def.Cmdline != "cmdline 1" {
		t.Errorf("the command line is %q", def.Cmdline)
	}
	gatewaytest.Must(t, errors.Join(h.sweepLayers(t.Context(), blog.ID), h.removeFiles(blog.ID)))
	if left, err := os.ReadDir(h.cfg.diskDir()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}

	reserve()
	guest.VM = blog
	err = h.makeDisks(t.Context(), guest, source{img: img}) // of an image that was built anew since
	if gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("an image that was replaced meanwhile: %v", err)
	}
}
