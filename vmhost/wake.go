package vmhost

import (
	"context"

	"lodge/gateway"
)

// Wake starts a VM for a request or a mail: one that is to be stopped, whose domain has ended, with no
// Stop under way, and whose record may allows, which is asked again when the start is recorded. It does
// nothing for a VM that should run. All others fail, with KindConflict or KindNotFound: what arrives
// during a stop does not undo it.
func (h *Host) Wake(ctx context.Context, id gateway.ID, may func(gateway.VM) bool) error {
	w, err := h.begin(ctx, id)
	if err != nil {
		return err
	}
	if m, ok := h.dir.ByID(id); ok && m.Desired == gateway.Stopped && w.isStopping() {
		return errStopping(m.Name) // without the turn, for which Stop may wait
	}
	return w.exclusively(ctx, func() error { return h.wakeNow(ctx, w, may) })
}

// wakeNow is Wake. The caller holds the worker's turn.
func (h *Host) wakeNow(ctx context.Context, w *worker, may func(gateway.VM) bool) error {
	m, ok := h.dir.ByID(w.id)
	if ok && m.Desired == gateway.Running {
		return nil
	}
	if err := w.mayWake(m, may); err != nil {
		return err
	}
	state, err := h.virt.State(ctx, w.id)
	if err != nil {
		return err
	}
	if !hasEnded(state) {
		return errStopping(m.Name)
	}
	return h.startNow(ctx, w, state, func() (gateway.VM, error) { return h.desireAwake(ctx, w, may) })
}

// desireAwake makes Running the desired state of a VM that may be woken. A Stop that has begun by
// then, or begins later, wins.
func (h *Host) desireAwake(ctx context.Context, w *worker, may func(gateway.VM) bool) (gateway.VM, error) {
	return h.dir.Update(ctx, w.id, func(m *gateway.VM) error {
		if err := w.mayWake(*m, may); err != nil {
			return err
		}
		desire(m, gateway.Running)
		return nil
	})
}

// mayWake returns why the VM is not woken. m is its record.
func (w *worker) mayWake(m gateway.VM, may func(gateway.VM) bool) error {
	switch {
	case m.ID != w.id || m.Desired == gateway.Removed:
		return errGone()
	case m.Desired != gateway.Stopped:
		return errChanged()
	case !may(m):
		return gateway.Errorf(gateway.KindConflict, "%s is stopped, and its settings do not allow to wake it", m.Name)
	case w.isStopping():
		return errStopping(m.Name)
	}
	return nil
}

func errStopping(name string) error {
	return gateway.Errorf(gateway.KindConflict, "%s is being stopped", name)
}

// stops records that a Stop is under way, until ended is called.
func (w *worker) stops() (ended func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stopping--
	}
}

func (w *worker) isStopping() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopping > 0
}
