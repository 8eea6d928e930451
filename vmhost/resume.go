package vmhost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
	"lodge/vmhost/seed"
	"lodge/vmhost/template"
)

// source is what a new VM begins with: a template, or an image that it boots.
type source struct {
	img      image.Image
	template template.Template // without an ID: none
}

// chooseSource finds a template for a new VM. Without one the VM boots, and report gets the reason.
func (h *Host) chooseSource(ctx context.Context, spec gateway.Spec, img image.Image, report func(phase, text string)) (source, error) {
	s := source{img: img}
	if spec.Boot || spec.DirectBoot {
		return s, nil
	}
	key, err := h.templateKey(ctx, img, spec.Size)
	if err == nil {
		s.template, err = h.findTemplate(ctx, img, key, func() { report("template", "making a template for VMs of this size") })
	}
	if ctx.Err() != nil {
		return s, ctx.Err()
	}
	if err != nil {
		s.template = template.Template{}
		report("boot", "booting: "+explain(err))
		h.log.WarnContext(ctx, "VM boots, without a template", "vm", spec.Name, "reason", err)
	}
	return s, nil
}

// claim records a new VM with the layer of its disk.
func (h *Host) claim(ctx context.Context, m gateway.VM, s *source) (gateway.VM, error) {
	err := h.reserve(ctx, m, s, func(id gateway.LayerID) (err error) {
		m.Disk = id
		m, err = h.dir.Create(ctx, m)
		return err
	})
	return m, err
}

// buildResumed makes a new VM and resumes it from a template. Made is true once its disks are ready: after
// an error it may boot. The caller holds the worker's turn.
func (h *Host) buildResumed(ctx context.Context, w *worker, guest seed.Guest, from source, step func(phase, text string)) (made bool, err error) {
	err = h.starting(ctx, w, func() error { // so that few copies of memory are on disk at once
		memory := h.cfg.memoryFile(w.id)
		defer os.Remove(memory) //nolint:errcheck // removal of the VM, or the next daemon, tries again
		copying, stop := context.WithCancel(ctx)
		defer stop()
		copied := make(chan error, 1)
		go func() { copied <- h.copyMemory(copying, memory, from.template) }() // while the disks are synced
		if err := h.makeReady(ctx, guest, from, step); err != nil {
			stop()
			<-copied
			return err
		}
		made = true
		if err := <-copied; err != nil {
			return err
		}
		return h.resume(ctx, w, memory)
	})
	return made, err
}

// copyMemory copies the memory of a template for a VM that adopts it.
func (h *Host) copyMemory(ctx context.Context, to string, t template.Template) error {
	if err := disk.CheckRoom(h.cfg.diskDir(), disk.Occupied(t.Memory)); err != nil {
		return err
	}
	return disk.CopyTemp(ctx, to, t.Memory)
}

// resume starts a new VM from its copy of a template's memory, with the VM's own identity: its tap, rules
// and listeners are there before the guest runs. The guest reads the rest of it from its seed.
func (h *Host) resume(ctx context.Context, w *worker, memory string) error {
	m, err := h.nextIncarnation(ctx, w.id)
	if err != nil {
		return err
	}
	if err := h.startFromMemory(ctx, w, m, memory, resumed); err != nil {
		return err
	}
	h.log.InfoContext(ctx, "VM was resumed from a template", "vm", m.Name)
	return nil
}

// bootInstead gives a VM that could not be resumed a disk of its own, and boots it.
func (h *Host) bootInstead(ctx context.Context, w *worker, guest seed.Guest, s source) error {
	if err := h.virt.Destroy(ctx, w.id); err != nil {
		return err
	}
	if err := h.virt.Undefine(ctx, w.id); err != nil {
		return err
	}
	s.template = template.Template{}
	err := h.reserve(ctx, guest.VM, &s, func(id gateway.LayerID) (err error) {
		guest.VM, err = h.dir.Update(ctx, w.id, func(m *gateway.VM) error {
			m.Disk, m.Ready = id, false // after a crash the VM is half-made
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	if err := h.makeDisks(ctx, guest, s); err != nil {
		return err
	}
	if err := h.sweepLayers(ctx, gateway.ID{}); err != nil { // the layer over the template; the next sweep tries again
		h.log.WarnContext(ctx, "layers were not removed", "vm", guest.VM.Name, "err", err)
	}
	if err := h.setReady(ctx, w.id); err != nil {
		return err
	}
	return h.bringUp(ctx, w)
}

// removeMemories removes the copies of templates' memory that a daemon left when it was killed.
func (h *Host) removeMemories() error {
	left, err := filepath.Glob(filepath.Join(h.cfg.diskDir(), "*"+memoryExt))
	if err != nil {
		return fmt.Errorf("list copies of memory: %w", err)
	}
	for _, file := range left {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("remove copy of memory: %w", err)
		}
	}
	return durable.Sync(h.cfg.diskDir())
}

// hostKernel is the release of the host's kernel, whose KVM decides what guests see of the CPU.
func hostKernel() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(release))
}

// hostCPU identifies the host's CPU, which guests under KVM see: the fields of proc_cpuinfo(5) that
// do not change while it runs.
func hostCPU() (string, error) {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("read the host's CPU: %w", err)
	}
	return cpuOf(string(text)), nil
}

// cpuOf is hostCPU for the content of /proc/cpuinfo.
func cpuOf(cpuinfo string) string {
	first, _, _ := strings.Cut(cpuinfo, "\n\n")
	hash := sha256.New()
	for line := range strings.Lines(first) {
		name, _, _ := strings.Cut(line, "\t")
		switch strings.TrimSpace(name) {
		case "vendor_id", "cpu family", "model", "model name", "stepping", "flags":
			hash.Write([]byte(line))
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}
