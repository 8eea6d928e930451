package vmhost

import (
	"context"
	"errors"

	"lodge/gateway"
	"lodge/vmhost/layers"
	"lodge/vmhost/libvirt"
)

// settleDisk finishes the change of a VM's disk to a new layer that an earlier daemon has begun, or whose
// call libvirtd did not answer: it compares the domain with the record. The caller holds the worker's
// turn.
func (h *Host) settleDisk(ctx context.Context, id gateway.ID, state libvirt.State) error {
	l, ok := h.layers.Pending(id)
	if !ok {
		return nil
	}
	if hasEnded(state) && state != libvirt.Saved {
		return h.layers.Finish(ctx, l.ID)
	}
	file, err := h.virt.DiskFile(ctx, id, state == libvirt.Saved)
	if err != nil {
		return err
	}
	path := h.layers.Path(l)
	switch {
	case file == path:
	case state == libvirt.Saved: // its memory belongs to the layer below
		return h.layers.Remove(ctx, l.ID)
	default: // libvirtd may still do it, so it is asked again
		err = h.virt.Pivot(ctx, id, path, false)
	}
	if errors.Is(err, libvirt.ErrRefused) {
		return errors.Join(err, h.layers.Remove(context.WithoutCancel(ctx), l.ID))
	}
	if err != nil {
		return err
	}
	h.virt.Thaw(ctx, id) // libvirtd may have ended between freeze and thaw
	h.log.InfoContext(ctx, "change of the disk was finished", "vm", h.name(id))
	return h.layers.Finish(ctx, l.ID)
}

// flattenDeep makes the disk of a VM that is off one layer if it has many. It is no error when that
// fails: the VM starts from the disk as it is.
func (h *Host) flattenDeep(ctx context.Context, id gateway.ID) {
	m, _ := h.dir.ByID(id)
	chain, err := h.layers.Chain(m.Disk)
	if err != nil || len(chain) < layers.FlattenAt {
		return
	}
	if _, err := h.layers.Flatten(ctx, id); err != nil {
		h.log.WarnContext(ctx, "disk was not flattened", "vm", m.Name, "err", err)
		return
	}
	h.log.InfoContext(ctx, "disk was flattened", "vm", m.Name)
	if err := h.sweepLayers(ctx, gateway.ID{}); err != nil { // the next sweep tries again
		h.log.WarnContext(ctx, "layers were not removed", "vm", m.Name, "err", err)
	}
}
