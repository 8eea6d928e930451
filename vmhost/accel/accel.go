// Package accel decides how guests run: under KVM, or translated by QEMU (TCG).
//
// The existence of /dev/kvm proves nothing: on some nested hosts every guest hangs under it. A
// Prover therefore starts the kernel of an image under KVM, without a disk, and waits for its first
// line. The result holds for one boot of one kernel of the host and is kept in a file.
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
	"time"

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
	mode   Mode
	device string
	file   string // of the result
	limits [2]time.Duration
	log    *slog.Logger

	kernels chan string   // holds the path of a kernel to probe with
	known   chan struct{} // closed once result is set
	mu      sync.Mutex
	result  probeResult
}

// Where KVM works, a kernel writes its first line within half a second, or later on a busy host.
// After the first limit VMs run under TCG. TCG is cached for this boot only after the second limit.
const (
	firstLimit  = 3 * time.Second
	secondLimit = 10 * time.Second
)

// New returns a Prover for a mode. file keeps the result of Auto.
func New(mode Mode, file string, log *slog.Logger) *Prover {
	return &Prover{
		mode: mode, device: "/dev/kvm", file: file, limits: [2]time.Duration{firstLimit, secondLimit}, log: log,
		kernels: make(chan string, 1), known: make(chan struct{}),
	}
}

// probeResult is the outcome of a probe of KVM.
type probeResult struct {
	Boot   string `json:"boot"` // the boot id and the release of the host's kernel
	KVM    bool   `json:"kvm"`
	Reason string `json:"reason"` // for people
}

// Run probes KVM with the first kernel it gets, once per boot of the host, and returns. It returns
// early when ctx ends.
func (p *Prover) Run(ctx context.Context) {
	if p.mode != Auto {
		return
	}
	cached, err := cachedResult(p.file)
	switch {
	case err != nil:
		p.log.ErrorContext(ctx, "result of the KVM probe was unreadable", "err", err)
	case cached.Reason != "":
		p.publish(ctx, cached)
		return
	}
	select {
	case <-ctx.Done():
	case kernel := <-p.kernels:
		p.probe(ctx, kernel, cached.Boot)
	}
}

// probe publishes the result of a probe, and of a second one when nothing was seen in the first.
func (p *Prover) probe(ctx context.Context, kernel, boot string) {
	r := probeResult{Boot: boot}
	for _, limit := range p.limits {
		silent, err := false, error(nil)
		if r.KVM, silent, r.Reason, err = probeKVM(ctx, p.device, kernel, limit); err != nil {
			return // ctx has ended
		}
		p.publish(ctx, r)
		if !silent {
			break
		}
	}
	if boot == "" {
		return // without a key for this boot the result would never expire
	}
	if err := r.save(p.file); err != nil {
		p.log.ErrorContext(ctx, "result of the KVM probe was not saved", "err", err)
	}
}

func (p *Prover) publish(ctx context.Context, r probeResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.result.Reason == ""
	p.result = r
	if first {
		close(p.known)
	}
	p.log.InfoContext(ctx, "acceleration was chosen", "kvm", r.KVM, "reason", r.Reason)
}

// Offer gives Run a kernel to probe with. Run ignores later offers.
func (p *Prover) Offer(kernel string) {
	select {
	case p.kernels <- kernel:
	default: // it has one
	}
}

// UseKVM reports whether guests run under KVM. For Auto it waits for Run's first result; kernel
// returns the path of a kernel, and is called only if there is no result yet.
func (p *Prover) UseKVM(ctx context.Context, kernel func() (string, error)) (bool, error) {
	if p.mode != Auto {
		return p.mode == KVM, nil
	}
	select {
	case <-p.known:
	default:
		path, err := kernel()
		if err != nil {
			return false, err
		}
		p.Offer(path)
	}
	select {
	case <-p.known:
	case <-ctx.Done():
		return false, fmt.Errorf("wait for the KVM probe: %w", ctx.Err())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.result.KVM, nil
}

// cachedResult reads the result for this boot. A result without a Reason is not known yet.
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
