package vmhost

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/vmhost/image"
)

// Accel is how guests run.
type Accel string

// The ways to run guests.
const (
	Auto Accel = "auto" // KVM if it is proven to work, else TCG
	KVM  Accel = "kvm"  // hardware virtualization
	TCG  Accel = "tcg"  // QEMU translates; many times slower, works everywhere
)

// ParseAccel reads auto, kvm or tcg; the empty string is Auto.
func ParseAccel(s string) (Accel, error) {
	switch a := Accel(s); a {
	case "":
		return Auto, nil
	case Auto, KVM, TCG:
		return a, nil
	default:
		return "", gateway.Invalid("not a way to run guests: %q", s).WithHint("accel is auto, kvm or tcg.")
	}
}

// proofLimit is many times what a kernel needs to say its first line under a KVM that works.
const proofLimit = 10 * time.Second

// verdict is what the proof of KVM said. It holds for one boot of one kernel of the host.
type verdict struct {
	Boot   string `json:"boot"` // the boot id and the release of the host's kernel
	KVM    bool   `json:"kvm"`
	Reason string `json:"reason"` // for people
}

// useKVM says whether guests run under KVM. For Auto it starts the kernel of the image for a moment, once per boot of the
// host: a /dev/kvm that exists may still hang every guest.
func (h *Host) useKVM(ctx context.Context, name string) (bool, error) {
	if h.cfg.Accel != Auto {
		return h.cfg.Accel == KVM, nil
	}
	h.accelMu.Lock()
	defer h.accelMu.Unlock()
	if h.kvm != nil {
		return h.kvm.KVM, nil
	}
	cache := filepath.Join(h.cfg.StateDir, "accel.json")
	v, err := cachedVerdict(cache)
	if err != nil {
		return false, err
	}
	if v.Reason == "" {
		img, err := image.Open(h.cfg.imageDir(), name)
		if err != nil {
			return false, err
		}
		if v.KVM, v.Reason, err = prove(ctx, "/dev/kvm", img.Kernel); err != nil {
			return false, err
		}
		if err := v.save(cache); err != nil {
			return false, err
		}
	}
	h.log.InfoContext(ctx, "acceleration was chosen", "kvm", v.KVM, "reason", v.Reason)
	h.kvm = &v
	return v.KVM, nil
}

// Accel says how guests run, and why; Auto when that is not decided yet.
func (h *Host) Accel() (how Accel, reason string) {
	h.accelMu.Lock()
	defer h.accelMu.Unlock()
	switch {
	case h.cfg.Accel != Auto:
		return h.cfg.Accel, "the configuration says so"
	case h.kvm == nil:
		return Auto, "the first VM to start decides"
	case h.kvm.KVM:
		return KVM, h.kvm.Reason
	default:
		return TCG, h.kvm.Reason
	}
}

// cachedVerdict reads the verdict for this boot. One without a Reason is still to be made.
func cachedVerdict(file string) (verdict, error) {
	boot, err := bootKey()
	if err != nil {
		return verdict{}, err
	}
	var v verdict
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil || v.Boot != boot { // none yet, cut off, or from before a reboot
		return verdict{Boot: boot}, nil
	}
	return v, nil
}

func (v verdict) save(file string) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write verdict on KVM: %w", err)
	}
	return writeSynced(file, text)
}

// bootKey changes with each boot of the host (random(4)) and with its kernel.
func bootKey() (string, error) {
	var parts []string
	for _, file := range []string{"/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/osrelease"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("identify this boot: %w", err)
		}
		parts = append(parts, strings.TrimSpace(string(text)))
	}
	return strings.Join(parts, " "), nil
}

// prove starts kernel under KVM, without a disk, and waits for its first line. An error means that nothing was proven.
func prove(ctx context.Context, device, kernel string) (works bool, reason string, err error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return false, fmt.Sprintf("%s cannot be opened: %v", device, errors.Unwrap(err)), nil
	}
	_ = f.Close() // nothing was written
	limited, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	begun := time.Now()
	said, err := firstWords(limited, kernel)
	switch {
	case ctx.Err() != nil:
		return false, "", fmt.Errorf("prove KVM: %w", ctx.Err())
	case said:
		return true, fmt.Sprintf("a guest kernel started under it in %d ms", time.Since(begun).Milliseconds()), nil
	case limited.Err() != nil:
		return false, fmt.Sprintf("%s is there, but a guest kernel said nothing under it for %s", device, proofLimit), nil
	case err != nil:
		return false, fmt.Sprintf("%s is there, but QEMU could not use it: %v", device, err), nil
	default:
		return false, fmt.Sprintf("%s is there, but a guest kernel ended under it without a word", device), nil
	}
}

// firstWords runs kernel and reports whether it has said its first line. QEMU is ended as soon as it has, or with ctx.
func firstWords(ctx context.Context, kernel string) (said bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var complaint bytes.Buffer
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "pc", "-m", "256",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", kernel, "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1")
	qemu.Stderr = &complaint
	out, err := qemu.StdoutPipe()
	if err != nil {
		return false, fmt.Errorf("start qemu: %w", err)
	}
	if err := qemu.Start(); err != nil {
		return false, fmt.Errorf("start qemu: %w", err)
	}
	said = hasFirstLine(out)
	cancel()
	err = qemu.Wait()
	if complaint.Len() > 0 {
		err = errors.New(strings.TrimSpace(complaint.String()))
	}
	return said, err
}

// hasFirstLine reads until "Linux version", the first line of every Linux kernel, or the end; at most 1 MiB.
func hasFirstLine(r io.Reader) bool {
	want, seen := []byte("Linux version"), []byte(nil)
	r = io.LimitReader(r, 1<<20)
	for chunk := make([]byte, 4096); ; {
		n, err := r.Read(chunk)
		seen = append(seen, chunk[:n]...)
		if bytes.Contains(seen, want) {
			return true
		}
		if err != nil {
			return false
		}
	}
}
