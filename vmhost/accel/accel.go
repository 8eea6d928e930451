// Package accel decides how guests run: under KVM, or translated by QEMU (TCG).
//
// That /dev/kvm exists proves nothing: in some nested hosts every guest hangs under it. So a Prover starts the kernel of an
// image under KVM, without a disk, and waits for its first line. The result holds for one boot of one kernel of the host and
// is kept in a file.
//
// This package never runs a VM and never changes the device.
package accel

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// Mode is how guests run.
type Mode string

// The ways to run guests.
const (
	Auto Mode = "auto" // KVM if it is proven to work, else TCG
	KVM  Mode = "kvm"  // hardware virtualization
	TCG  Mode = "tcg"  // QEMU translates; many times slower, works everywhere
)

// Parse reads auto, kvm or tcg; the empty string is Auto.
func Parse(s string) (Mode, error) {
	switch m := Mode(s); m {
	case "":
		return Auto, nil
	case Auto, KVM, TCG:
		return m, nil
	default:
		return "", gateway.Invalid("not a way to run guests: %q", s).WithHint("accel is auto, kvm or tcg.")
	}
}

// Prover decides between KVM and TCG. It is safe for concurrent use.
type Prover struct {
	mode Mode
	file string // of the result
	log  *slog.Logger

	mu     sync.Mutex
	result *probeResult // nil until there is one
}

// New returns a Prover for a mode. file keeps the result of Auto.
func New(mode Mode, file string, log *slog.Logger) *Prover {
	return &Prover{mode: mode, file: file, log: log}
}

// probeResult is the outcome of a probe of KVM.
type probeResult struct {
	Boot   string `json:"boot"` // the boot id and the release of the host's kernel
	KVM    bool   `json:"kvm"`
	Reason string `json:"reason"` // for people
}

// UseKVM reports whether guests run under KVM. For Auto it starts a kernel for a moment, once per boot of the host; kernel
// returns the path of one, and is called only if that is needed.
func (p *Prover) UseKVM(ctx context.Context, kernel func() (string, error)) (bool, error) {
	if p.mode != Auto {
		return p.mode == KVM, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.result != nil {
		return p.result.KVM, nil
	}
	r, err := cachedResult(p.file)
	if err != nil {
		return false, err
	}
	if r.Reason == "" {
		path, err := kernel()
		if err != nil {
			return false, err
		}
		if r.KVM, r.Reason, err = probeKVM(ctx, "/dev/kvm", path); err != nil {
			return false, err
		}
		if err := r.save(p.file); err != nil {
			return false, err
		}
	}
	p.log.InfoContext(ctx, "acceleration was chosen", "kvm", r.KVM, "reason", r.Reason)
	p.result = &r
	return r.KVM, nil
}

// cachedResult reads the result for this boot. One without a Reason is still to be found.
func cachedResult(file string) (probeResult, error) {
	boot, err := bootKey()
	if err != nil {
		return probeResult{}, err
	}
	var r probeResult
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || r.Boot != boot { // none yet, cut off, or from before a reboot
		return probeResult{Boot: boot}, nil
	}
	return r, nil
}

func (r probeResult) save(file string) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode result of the KVM probe: %w", err)
	}
	return durable.WriteFile(file, text, 0o600)
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
