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

// removedLife is how long the UUID of a removed VM is kept. libvirtd may carry out a call long
// after its timeout, and define the VM's domain again.
const removedLife = 30 * 24 * time.Hour

// keepRemoved records the UUID of a VM under removal as the name of an empty file.
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

// removeStrays removes the domains of removed VMs. It only logs other domains with Lodge's names
// that have no record: they may belong to a lost state directory. Without a record a domain has no
// tap and reaches nothing.
func (h *Host) removeStrays(ctx context.Context, reported map[gateway.ID]bool) {
	ids, err := h.virt.List(ctx)
	if err != nil {
		return // the client logs that libvirtd is down, and reports a change when it is back
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
