package vmhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
)

// identify sets up the VM's tap and rules, and opens the listeners on the tap. Every start calls it,
// so that no VM starts unfiltered after another program has flushed the rules.
func (h *Host) identify(ctx context.Context, w *worker, vm gateway.Identity) error {
	if err := h.cfg.Net.Up(ctx, vm); err != nil {
		return err
	}
	return h.openListeners(ctx, w, vm)
}

// identifyAgain calls identify for a running VM whose tap was made anew: the tap has another index,
// and its predecessor's listeners are dead. Every reconcile calls it. Repair restores the rules.
func (h *Host) identifyAgain(ctx context.Context, w *worker, vm gateway.Identity) error {
	before := w.identifiedOn()
	if before != 0 && before == tapIndex(vm) {
		return nil
	}
	return h.identify(ctx, w, vm)
}

// openListeners opens the listeners on the VM's tap, which exists.
func (h *Host) openListeners(ctx context.Context, w *worker, vm gateway.Identity) error {
	before, now := w.identifiedOn(), tapIndex(vm)
	if err := h.cfg.TapListeners.Open(ctx, vm); err != nil {
		return err
	}
	w.setIdentified(now)
	if before != 0 && before != now {
		h.log.WarnContext(ctx, "listeners were opened on a new tap", "vm", vm.Name, "tap", vm.Tap())
	}
	return nil
}

// tapIndex returns the interface index of the VM's tap; 0 when there is none.
func tapIndex(vm gateway.Identity) int {
	index, _ := strconv.Atoi(readTap(vm, "ifindex")) // 0 when there is no such file
	return index
}

// checkHeld fails for a running VM whose tap no process holds: the tap was made anew, and QEMU has
// the old one.
func checkHeld(vm gateway.Identity) error {
	if readTap(vm, "carrier") != "0" {
		return nil
	}
	return gateway.Errorf(gateway.KindConflict, "%s has no network: its tap was made anew, and its QEMU holds the old one", vm.Name).
		WithHint("Restart it: lodge restart %s", vm.Name)
}

func readTap(vm gateway.Identity, attribute string) string {
	text, err := os.ReadFile("/sys/class/net/" + vm.Tap() + "/" + attribute)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// identifyAll makes the taps and rules of all VMs in one step and opens the listeners of those that
// stay. It needs no libvirtd, so running VMs get their services back even while libvirtd is down.
// An error of one VM, or of the ruleset, leaves the services of the others alone: every VM that has a
// tap gets its listeners. After an error each VM's worker tries again, and does not start the VM
// before that has worked.
func (h *Host) identifyAll(ctx context.Context) {
	all := h.dir.All()
	vms := make([]gateway.Identity, len(all))
	for i, m := range all {
		vms[i] = m.Identity
	}
	err := h.cfg.Net.Apply(ctx, vms)
	if ctx.Err() != nil {
		return
	}
	h.setNetwork(ctx, err)
	for _, m := range all {
		if m.Desired == gateway.Removed {
			continue
		}
		w := h.worker(m.ID)
		if err := h.openListeners(ctx, w, m.Identity); err != nil {
			h.log.ErrorContext(ctx, "listeners were not opened", "vm", m.Name, "tap", m.Tap(), "err", err)
		}
		if err != nil {
			w.setIdentified(0) // so that the worker calls Net.Up, which may fail for this VM
		}
	}
	h.cfg.TapListeners.CloseRest()
}

// repairEvery is how long the rules may be missing after something has flushed them. Without them
// guests reach more of the host's networks, but no VM's identity changes: the listeners are bound
// to their taps.
const repairEvery = 5 * time.Second

// repair restores taps and rules until ctx ends, and has the VMs with a new tap reconciled.
func (h *Host) repair(ctx context.Context) {
	due := time.NewTicker(repairEvery)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
		replaced, err := h.cfg.Net.Repair(ctx)
		if ctx.Err() != nil {
			return
		}
		h.setNetwork(ctx, err)
		for _, vm := range replaced {
			if m, ok := h.dir.ByID(vm.ID); !ok || m.Desired == gateway.Removed {
				continue
			}
			w := h.worker(vm.ID)
			if err := h.openListeners(ctx, w, vm); err != nil {
				h.log.ErrorContext(ctx, "listeners were not opened", "vm", vm.Name, "tap", vm.Tap(), "err", err)
			}
			w.wake() // to check that QEMU holds it
		}
	}
}

// setNetwork records the state of taps and rules, and logs each new error once.
func (h *Host) setNetwork(ctx context.Context, err error) {
	h.mu.Lock()
	changed := text(h.network) != text(err)
	h.network = err
	h.mu.Unlock()
	if err != nil && changed {
		h.log.ErrorContext(ctx, "network rules were incomplete", "err", err)
	}
}

// Ready returns nil once every VM has its tap, rules and listeners and was examined once, even if
// libvirtd did not answer. Later Ready fails only while the network rules are incomplete.
func (h *Host) Ready() error {
	select {
	case <-h.ready:
	default:
		return errors.New("lodged is setting up the networks of the VMs")
	}
	h.mu.Lock()
	network, asked, settled := h.network, h.asked, h.settled
	h.mu.Unlock()
	switch {
	case network != nil:
		return fmt.Errorf("the network rules are incomplete: %w", network)
	case settled:
		return nil
	case !asked:
		return errors.New("libvirtd has not answered yet")
	}
	var left int
	for _, m := range h.dir.All() {
		if (m.Ready || m.Desired == gateway.Removed) && !h.worker(m.ID).isExamined() {
			left++
		}
	}
	if left > 0 {
		return fmt.Errorf("%d VMs have not been examined yet", left)
	}
	h.mu.Lock()
	h.settled = true
	h.mu.Unlock()
	return nil
}
