package vmhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
)

func (c Config) kernelFile(id gateway.ID) string  { return c.bootFile(id, ".vmlinuz") }
func (c Config) initrdFile(id gateway.ID) string  { return c.bootFile(id, ".initrd") }
func (c Config) cmdlineFile(id gateway.ID) string { return c.bootFile(id, ".cmdline") }

func (c Config) bootFile(id gateway.ID, ext string) string {
	return filepath.Join(c.diskDir(), id.String()+ext)
}

// makeBoot copies what the VM boots directly from, synced, for as long as the VM lives: its disk has
// the modules of this kernel alone, and a build replaces the image's. It fails with KindConflict
// when a build has done that since the image was opened.
func (h *Host) makeBoot(ctx context.Context, id gateway.ID, img image.Image) error {
	const mode = 0o644 // QEMU, which is not root, opens them
	err := errors.Join(
		disk.Copy(ctx, h.cfg.kernelFile(id), img.Kernel, mode),
		disk.Copy(ctx, h.cfg.initrdFile(id), img.Initrd, mode),
		durable.WriteFile(h.cfg.cmdlineFile(id), []byte(img.Cmdline), 0o600),
	)
	if err != nil {
		return fmt.Errorf("copy kernel: %w", err)
	}
	if now, err := image.Open(h.cfg.imageDir(), img.Name); err != nil || !now.Built.Equal(img.Built) {
		return errRebuilt(img.Name).Because(err)
	}
	return nil
}

// setBoot makes the definition one that boots directly from the VM's copies.
func (h *Host) setBoot(def *libvirt.Definition) error {
	cmdline, err := os.ReadFile(h.cfg.cmdlineFile(def.VM.ID))
	if err != nil {
		return fmt.Errorf("read kernel command line: %w", err)
	}
	def.Kernel, def.Initrd, def.Cmdline = h.cfg.kernelFile(def.VM.ID), h.cfg.initrdFile(def.VM.ID), string(cmdline)
	return nil
}
