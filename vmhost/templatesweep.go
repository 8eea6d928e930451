package vmhost

import (
	"context"
	"errors"

	"lodge/gateway"
	"lodge/vmhost/image"
	"lodge/vmhost/template"
)

// endStrayTemplates ends the guests of templates that an earlier daemon, or an earlier libvirtd, has
// left.
func (h *Host) endStrayTemplates(ctx context.Context) {
	if !h.templates.guest.TryLock() {
		return
	}
	defer h.templates.guest.Unlock()
	if err := h.virt.EndTemplates(ctx); err != nil && ctx.Err() == nil {
		h.log.WarnContext(ctx, "guests of templates were not ended", "err", err)
	}
}

// sweepTemplates removes the templates that no new VM can use, those past maxTemplates, and disks
// without a user.
func (h *Host) sweepTemplates(ctx context.Context) {
	all, err := h.templates.store.List()
	seen := map[template.Key]bool{}
	for _, t := range all {
		if len(seen) < maxTemplates && !seen[t.Key] && h.isCurrent(ctx, t) {
			seen[t.Key] = true
			continue
		}
		err = errors.Join(err, h.RemoveTemplate(t.ID))
	}
	if err = errors.Join(err, h.sweepLayers(ctx, gateway.ID{})); err != nil && ctx.Err() == nil {
		h.log.ErrorContext(ctx, "templates were not removed", "err", err)
	}
}

// isCurrent reports whether a new VM could use the template: its image, QEMU and libvirt are those
// of now. If that cannot be found out, it is.
func (h *Host) isCurrent(ctx context.Context, t template.Template) bool {
	img, err := image.Open(h.cfg.imageDir(), t.Key.Image)
	if err != nil {
		return gateway.KindOf(err) != gateway.KindNotFound
	}
	key, err := h.templateKey(ctx, img, gateway.Size{CPUs: t.Key.CPUs, MemoryMiB: t.Key.MemoryMiB})
	return err != nil || key == t.Key
}

// Templates returns the templates, the one used last first.
func (h *Host) Templates() ([]template.Template, error) { return h.templates.store.List() }

// RemoveTemplate removes a template. VMs that came from it keep their disks.
func (h *Host) RemoveTemplate(id string) error {
	h.templates.mu.Lock()
	defer h.templates.mu.Unlock()
	return h.templates.store.Remove(id, h.isBase(h.templates.store.Disk(id)))
}
