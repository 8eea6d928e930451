package vmhost

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/vmhost/image"
)

// Run puts the identity of every VM in place, then keeps the VMs as they ought to be until ctx ends. It may be called
// once. It goes on without libvirtd and takes up the work when libvirtd is there.
func (h *Host) Run(ctx context.Context) error {
	if err := h.giveUpHalfMade(ctx); err != nil {
		return err
	}
	h.identifyAll(ctx)
	close(h.ready)
	var running sync.WaitGroup
	defer h.virt.Close()
	defer running.Wait()
	running.Go(func() { _ = h.virt.Run(ctx) }) // it has no error to tell
	running.Go(func() { h.mend(ctx) })
	running.Go(func() { h.accel.Run(ctx) })
	if img, err := image.Open(h.cfg.imageDir(), h.cfg.Defaults.Image); err == nil { // else the first VM's image serves
		h.accel.Offer(img.Kernel)
	}
	reported := map[gateway.ID]bool{}
	for {
		h.look(ctx, &running)
		h.removeStrays(ctx, reported)
		select {
		case <-ctx.Done():
			return nil
		case <-h.virt.Changes():
		case <-h.woken:
		}
	}
}

// mendEvery is how long the rules may be missing after somebody has flushed them. What is missing lets guests reach more of
// the host's networks, but makes nobody another: the doors are bound to their taps.
const mendEvery = 5 * time.Second

// mend keeps the network side whole until ctx ends.
func (h *Host) mend(ctx context.Context) {
	due := time.NewTicker(mendEvery)
	defer due.Stop()
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-due.C:
		}
		replaced, err := h.cfg.Net.Repair(ctx)
		for _, vm := range replaced {
			h.openAgain(ctx, vm)
		}
		if now := fmt.Sprint(err); err != nil && now != last && ctx.Err() == nil { // said once
			h.log.ErrorContext(ctx, "network identity is not whole", "err", err)
		}
		last = fmt.Sprint(err)
	}
}

// openAgain opens the listeners of a VM whose tap was replaced: the old ones are bound to a tap that is gone.
func (h *Host) openAgain(ctx context.Context, vm gateway.Identity) {
	if m, ok := h.dir.ByID(vm.ID); !ok || m.Desired == gateway.Removed {
		return
	}
	if err := h.cfg.TapListeners.Open(ctx, vm); err != nil {
		h.log.ErrorContext(ctx, "listeners on a new tap were not opened", "vm", vm.Name, "tap", vm.Tap(), "err", err)
		return
	}
	h.log.WarnContext(ctx, "listeners were opened on a new tap", "vm", vm.Name, "tap", vm.Tap())
}

// giveUpHalfMade marks for removal the VMs that a daemon which was killed had not finished making.
func (h *Host) giveUpHalfMade(ctx context.Context) error {
	for _, m := range h.dir.All() {
		if m.Ready || m.Desired == gateway.Removed {
			continue
		}
		if _, err := h.desire(ctx, m.ID, gateway.Removed); err != nil {
			return fmt.Errorf("give up half-made VM %s: %w", m.Name, err)
		}
		h.log.WarnContext(ctx, "half-made VM was given up", "vm", m.Name)
	}
	return nil
}

// identifyAll makes the taps and rules of all VMs in one step and opens the doors of those that stay. It needs no libvirtd, so
// running VMs have their services back even while that is away. A VM for which it fails is tried again by its worker, and does
// not start before that has worked.
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
	if err != nil {
		h.log.ErrorContext(ctx, "network identity is not whole", "err", err)
		return
	}
	for _, m := range all {
		if m.Desired == gateway.Removed {
			continue
		}
		if err := h.cfg.TapListeners.Open(ctx, m.Identity); err != nil {
			h.log.ErrorContext(ctx, "doors stayed shut", "vm", m.Name, "err", err)
			continue
		}
		h.worker(m.ID).setIdentified()
	}
}

// look wakes the worker of every VM. A VM that is still being made has none.
func (h *Host) look(ctx context.Context, running *sync.WaitGroup) {
	for _, m := range h.dir.All() {
		if !m.Ready && m.Desired != gateway.Removed {
			continue
		}
		w := h.worker(m.ID)
		if w.startOnce() {
			running.Go(func() { h.work(ctx, w) })
		}
		w.wake()
	}
}

// wake has Run wake the workers now.
func (h *Host) wake() {
	select {
	case h.woken <- struct{}{}:
	default: // it will
	}
}
