package vmhost

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// removedLife is how long the UUID of a removed VM is kept. libvirtd may carry out a call that has timed out much later, and
// define the VM's domain once more.
const removedLife = 30 * 24 * time.Hour

// keepRemoved keeps the UUID of a VM that is about to be gone, as the name of an empty file.
func (h *Host) keepRemoved(id gateway.ID) error {
	entries, err := os.ReadDir(h.cfg.removedDir())
	if err != nil {
		return fmt.Errorf("list removed VMs: %w", err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > removedLife {
			_ = os.Remove(filepath.Join(h.cfg.removedDir(), e.Name())) // the next removal tries again
		}
	}
	if err := durable.WriteFile(h.cfg.removedFile(id), nil, 0o600); err != nil {
		return fmt.Errorf("record the removal: %w", err)
	}
	return nil
}

// wasRemoved reports whether the VM was removed by this host within removedLife.
func (h *Host) wasRemoved(id gateway.ID) (bool, error) {
	_, err := os.Stat(h.cfg.removedFile(id))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// removeStrays removes the domains of VMs that were removed, and logs those with a name of Lodge's kind that the Directory
// does not have. The latter may come from a state directory that was lost, so they stay; without a record they have no tap
// and reach nothing.
func (h *Host) removeStrays(ctx context.Context, reported map[gateway.ID]bool) {
	ids, err := h.virt.List(ctx)
	if err != nil {
		return // the client has logged that libvirtd is away; a change is reported when it is back
	}
	for _, id := range ids {
		if _, ok := h.dir.ByID(id); ok || reported[id] {
			continue
		}
		removed, err := h.wasRemoved(id)
		if removed {
			err = errors.Join(h.virt.Destroy(ctx, id), h.virt.Undefine(ctx, id))
		}
		switch {
		case err != nil:
			h.log.ErrorContext(ctx, "domain of a removed VM was not undefined", "vm_id", id, "err", err)
		case removed:
			h.log.InfoContext(ctx, "domain of a removed VM was undefined", "vm_id", id)
		default:
			h.log.WarnContext(ctx, "domain without a record was left alone", "vm_id", id)
			reported[id] = true
		}
	}
}
