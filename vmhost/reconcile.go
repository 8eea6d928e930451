package vmhost

import (
	"context"
	"errors"
	"time"

	"lodge/gateway"
	"lodge/vmhost/libvirt"
)

// A worker reconciles its VM every reconcileEvery even without an event, and every retryAfter after
// an error.
const (
	reconcileEvery = time.Minute
	retryAfter     = 15 * time.Second
)

// work reconciles the VM at each wake and whenever it is time, until ctx ends or the VM is gone.
func (h *Host) work(ctx context.Context, w *worker) {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.due:
		case <-due.C:
		}
		if _, ok := h.dir.ByID(w.id); !ok {
			return
		}
		due.Reset(h.attend(ctx, w))
	}
}

// attend reconciles once, keeps the error for Status, and returns the time until the next
// reconcile.
func (h *Host) attend(ctx context.Context, w *worker) time.Duration {
	again, err := h.reconcile(ctx, w)
	if changed := w.setTrouble(err); err != nil && changed && ctx.Err() == nil { // logged once, however often it fails
		h.log.ErrorContext(ctx, "reconcile failed", "vm", h.name(w.id), "err", err)
	}
	switch {
	case again > 0:
		return again
	case err != nil:
		return retryAfter
	default:
		return reconcileEvery
	}
}

func (h *Host) name(id gateway.ID) string {
	m, _ := h.dir.ByID(id)
	return m.Name
}

// reconcile brings the VM one step towards its desired state.
func (h *Host) reconcile(ctx context.Context, w *worker) (again time.Duration, err error) {
	err = w.inTurn(ctx, func() error {
		m, ok := h.dir.ByID(w.id)
		if !ok {
			return nil
		}
		if m.Desired == gateway.Removed {
			w.setExamined()
			return h.remove(ctx, w)
		}
		state, err := h.virt.State(ctx, m.ID)
		w.setExamined()
		if err != nil {
			return err
		}
		if m.Rollback != nil {
			return h.finishRollback(ctx, w)
		}
		if err := h.settleDisk(ctx, m.ID, state); err != nil {
			return err
		}
		defer w.setPace()
		if m.Desired != gateway.Running || state != libvirt.Running {
			h.leaveMerging(ctx, w, state)
		}
		if m.Desired == gateway.Stopped {
			return h.keepStopped(ctx, m, state)
		}
		again, err = h.keepRunning(ctx, w, m, state)
		return err
	})
	return again, err
}

// keepRunning starts a VM that has ended, and finishes a restart that was interrupted. A VM that was
// powered off from inside, or migrated to another host, stays stopped.
func (h *Host) keepRunning(ctx context.Context, w *worker, m gateway.VM, state libvirt.State) (again time.Duration, err error) {
	if m.Restarting && (state == libvirt.Running || state == libvirt.PoweredOff) {
		return 0, h.finishRestart(ctx, w, m, state)
	}
	switch state {
	case libvirt.PoweredOff:
		h.log.InfoContext(ctx, "VM was powered off from inside", "vm", m.Name)
		if _, err := h.desire(ctx, m.ID, gateway.Stopped); err != nil {
			return 0, err
		}
		return 0, h.undefine(ctx, m.ID)
	case libvirt.Migrated:
		h.log.WarnContext(ctx, "VM was migrated to another host", "vm", m.Name)
		_, err := h.record(ctx, m.ID, func(m *gateway.VM) {
			m.Desired, m.Migrated, m.Restarting = gateway.Stopped, true, false
		})
		return 0, err
	case libvirt.PausedFull:
		return w.pace.spaced(func() error { return h.virt.Resume(ctx, m.ID) })
	case libvirt.Absent, libvirt.Off, libvirt.Saved:
		return w.pace.spaced(func() error {
			h.log.InfoContext(ctx, "VM autostarted", "vm", m.Name)
			return h.startFrom(ctx, w, m, state)
		})
	default:
		if err := h.identifyAgain(ctx, w, m.Identity); err != nil {
			return 0, err
		}
		if state != libvirt.Running {
			return 0, nil
		}
		return h.merge(ctx, w), checkHeld(m.Identity)
	}
}

// finishRestart presses the power button of a running VM, or starts one that has shut down.
func (h *Host) finishRestart(ctx context.Context, w *worker, m gateway.VM, state libvirt.State) error {
	if state == libvirt.Running {
		return errors.Join(h.identifyAgain(ctx, w, m.Identity), h.virt.Shutdown(ctx, m.ID, true))
	}
	if err := h.undefine(ctx, m.ID); err != nil { // first, as in Start
		return err
	}
	return h.bringUp(ctx, w)
}

// keepStopped presses the power button of a running VM at every reconcile, or ends it if force was
// requested. It undefines a domain that has ended; a saved or migrated one keeps its definition.
func (h *Host) keepStopped(ctx context.Context, m gateway.VM, state libvirt.State) error {
	switch {
	case m.ForceStop:
		if err := h.virt.Destroy(ctx, m.ID); err != nil {
			return err
		}
		if err := h.virt.Undefine(ctx, m.ID); err != nil {
			return err
		}
		_, err := h.record(ctx, m.ID, func(m *gateway.VM) { m.ForceStop, m.Migrated = false, false })
		return err
	case state == libvirt.Migrated && !m.Migrated, state == libvirt.Running && m.Migrated: // it has gone, or come back
		_, err := h.record(ctx, m.ID, func(m *gateway.VM) { m.Migrated = state == libvirt.Migrated })
		return err
	case state == libvirt.Running:
		return h.virt.Shutdown(ctx, m.ID, true)
	case state == libvirt.Off || state == libvirt.PoweredOff:
		return h.undefine(ctx, m.ID)
	default:
		return nil
	}
}
