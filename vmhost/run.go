package vmhost

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"lodge/gateway"
	"lodge/vmhost/image"
)

// Run puts the identity of every VM in place, then keeps the VMs in their desired state until ctx
// ends. Call it once. It runs without libvirtd too, and starts work when libvirtd is up.
func (h *Host) Run(ctx context.Context) error {
	if err := h.layers.Recover(ctx); err != nil { // each layer by itself: the others' VMs run
		h.log.ErrorContext(ctx, "layers were not recovered", "err", err)
	}
	if err := errors.Join(h.giveUpHalfMade(ctx), h.removeMemories()); err != nil {
		return err
	}
	h.identifyAll(ctx)
	h.recoverCheckpoints(ctx)
	close(h.ready)
	var running sync.WaitGroup
	defer h.virt.Close()
	defer h.endMerge(context.WithoutCancel(ctx))
	defer running.Wait()
	running.Go(func() { _ = h.virt.Run(ctx) }) // it returns nil
	running.Go(func() { h.repair(ctx) })
	running.Go(func() { h.accel.Run(ctx) })
	if img, err := image.Open(h.cfg.imageDir(), h.cfg.Defaults.Image); err == nil { // else the first VM's image serves
		h.accel.Offer(img.Kernel)
	}
	running.Go(func() { h.makeTemplates(ctx) })
	running.Go(func() { h.prepareFirstTemplate(ctx) })
	running.Go(func() { h.runSchedules(ctx) })
	reported := map[gateway.ID]bool{}
	for {
		h.look(ctx, &running)
		h.removeStrays(ctx, reported)
		h.endStrayTemplates(ctx)
		h.endStrayReaders(ctx)
		h.setAsked()
		select {
		case <-ctx.Done():
			return nil
		case <-h.virt.Changes():
		case <-h.woken:
		}
	}
}

// giveUpHalfMade marks for removal the VMs that an earlier daemon was making when it was killed.
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

// setAsked records that libvirtd has answered once, or not in time.
func (h *Host) setAsked() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = true
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
	default: // Run is about to
	}
}
