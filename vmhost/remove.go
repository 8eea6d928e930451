package vmhost

import (
	"context"
	"errors"
	"fmt"

	"lodge/gateway"
)

// Remove removes the VM for good: its identity first, then its domain, then its data. When a step
// fails, the rest of Lodge already treats the VM as removed, and the worker retries until nothing
// is left.
func (h *Host) Remove(ctx context.Context, id gateway.ID) error {
	w, err := h.begin(ctx, id)
	if err != nil {
		return err
	}
	if _, err := h.desire(ctx, id, gateway.Removed); err != nil {
		return err
	}
	h.cfg.TapListeners.Close(id) // at once, even if a start holds the turn
	defer h.wake()
	return w.exclusively(ctx, func() error { return h.remove(ctx, w) })
}

// remove does the steps of a removal, each of which may be repeated. The caller holds the worker's
// turn.
func (h *Host) remove(ctx context.Context, w *worker) error {
	vm, ok := h.dir.ByID(w.id)
	if !ok {
		return nil // an earlier holder of the turn has removed it
	}
	h.cfg.TapListeners.Close(w.id)
	if err := h.virt.Kill(ctx, w.id); err != nil {
		return err
	}
	if err := h.virt.Undefine(ctx, w.id); err != nil {
		return err
	}
	if err := h.cfg.Net.Down(ctx, vm.Identity); err != nil {
		return fmt.Errorf("remove network: %w", err)
	}
	if err := h.removeData(ctx, w.id); err != nil {
		return err
	}
	h.log.InfoContext(ctx, "VM was removed", "vm", vm.Name)
	h.removeWorker(w)
	return nil
}

// removeData removes all that is kept of a VM without a domain, its record last.
func (h *Host) removeData(ctx context.Context, id gateway.ID) error {
	if err := h.dropCheckpoints(ctx, id); err != nil {
		return err
	}
	for _, remove := range h.cfg.OnRemove {
		if err := remove(ctx, id); err != nil {
			return fmt.Errorf("remove the VM's data: %w", err)
		}
	}
	if err := errors.Join(h.sweepLayers(ctx, id), h.layers.Leave(ctx, id)); err != nil {
		return err
	}
	if err := h.removeFiles(id); err != nil {
		return err
	}
	if err := h.keepRemoved(id); err != nil {
		return err
	}
	return h.dir.Delete(ctx, id)
}
