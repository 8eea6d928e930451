package vmhost

import (
	"context"
	"errors"
	"time"

	"lodge/gateway"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
)

// While a guest shuts down, the host polls its state every pollEvery and presses its power button
// every requestEvery. A guest early in its boot ignores the first request.
const (
	pollEvery    = 250 * time.Millisecond
	requestEvery = 5 * time.Second
)

// Start starts the VM if it does not run, from its saved memory if there is one. It returns once
// the domain runs; Wait waits for the guest. It fails with KindConflict for a VM that was migrated
// to another host.
func (h *Host) Start(ctx context.Context, id gateway.ID) error {
	return h.exclusively(ctx, id, func(w *worker) error {
		state, err := h.virt.State(ctx, id)
		if err != nil {
			return err
		}
		return h.startNow(ctx, w, state, func() (gateway.VM, error) { return h.desire(ctx, id, gateway.Running) })
	})
}

// startNow starts a VM from the present state of its domain, after desire has made Running its desired
// state. The caller holds the worker's turn.
func (h *Host) startNow(ctx context.Context, w *worker, state libvirt.State, desire func() (gateway.VM, error)) error {
	if err := h.checkMigrated(w.id, state); err != nil {
		return err
	}
	if state == libvirt.Off || state == libvirt.PoweredOff {
		// Undefine before recording Running: after a crash in between, the powered-off domain would
		// count as a poweroff from inside.
		if err := h.undefine(ctx, w.id); err != nil {
			return err
		}
	}
	m, err := desire()
	if err != nil {
		return err
	}
	w.pace = pace{}
	return h.startFrom(ctx, w, m, state)
}

// startFrom starts a VM, whose desired state is Running, from the present state of its domain.
func (h *Host) startFrom(ctx context.Context, w *worker, m gateway.VM, state libvirt.State) error {
	switch state {
	case libvirt.Paused, libvirt.PausedFull:
		return h.virt.Resume(ctx, m.ID)
	case libvirt.Running:
		return h.identify(ctx, w, m.Identity)
	case libvirt.Saved:
		return h.restore(ctx, w)
	case libvirt.Off, libvirt.PoweredOff:
		// Its definition names a layer that flattening removes.
		if err := h.undefine(ctx, m.ID); err != nil {
			return err
		}
		return h.bringUp(ctx, w)
	default:
		return h.bringUp(ctx, w)
	}
}

// checkMigrated fails for a VM that was migrated to another host and has not come back. The record
// has this too, since libvirtd does not keep the reason when it restarts.
func (h *Host) checkMigrated(id gateway.ID, state libvirt.State) error {
	m, _ := h.dir.ByID(id)
	if state == libvirt.Migrated || m.Migrated && hasEnded(state) {
		return errMigrated(m.Name)
	}
	return nil
}

func errMigrated(name string) error {
	return gateway.Errorf(gateway.KindConflict, "%s was migrated to another host, and its disk here is out of date", name).
		WithHint("To start it from that disk nevertheless: lodge stop --force %s; lodge start %s", name, name)
}

// Stop shuts the guest down and waits for it, at most Config.StopTimeout. When the guest does not
// react, Stop fails with KindConflict: the VM runs, and its desired state stays Stopped. With force
// it ends the VM at once, and removes its saved memory and the record of a migration. Force is
// recorded: if libvirtd hangs now, the worker ends the VM later.
func (h *Host) Stop(ctx context.Context, id gateway.ID, force bool) error {
	w, err := h.begin(ctx, id)
	if err != nil {
		return err
	}
	defer w.stops()() // before it is recorded
	m, err := h.record(ctx, id, func(m *gateway.VM) {
		m.Desired, m.ForceStop, m.Restarting = gateway.Stopped, m.ForceStop || force, false
	})
	if err != nil {
		return err
	}
	if force { // without the turn, which a start that hangs may hold
		err = h.virt.Destroy(ctx, id)
	} else {
		err = h.shutDown(ctx, m, gateway.Stopped)
	}
	if err != nil {
		return err
	}
	return h.exclusively(ctx, id, func(*worker) error {
		state, err := h.virt.State(ctx, id)
		m, _ := h.dir.ByID(id)
		if err != nil || m.Desired != gateway.Stopped {
			return err
		}
		return h.keepStopped(ctx, m, state)
	})
}

// Restart shuts the guest down, as Stop does, and starts the VM again with a new incarnation. It
// starts a VM that is stopped. It is recorded: if it is interrupted, the worker or the next daemon
// finishes it.
func (h *Host) Restart(ctx context.Context, id gateway.ID) error {
	return h.exclusively(ctx, id, func(w *worker) error { // else the worker would record a poweroff from inside
		state, err := h.virt.State(ctx, id)
		if err != nil {
			return err
		}
		if err := errors.Join(h.checkMigrated(id, state), h.settleDisk(ctx, id, state)); err != nil {
			return err
		}
		if err := h.checkDisk(ctx, id); err != nil {
			return err
		}
		m, err := h.record(ctx, id, func(m *gateway.VM) {
			m.Desired, m.ForceStop, m.Migrated, m.Restarting = gateway.Running, false, false, true
		})
		if err != nil {
			return err
		}
		if state == libvirt.Saved { // so that its guest can shut down cleanly
			if err := h.restore(ctx, w); err != nil {
				return err
			}
		}
		if err := h.shutDown(ctx, m, gateway.Running); err != nil {
			return err
		}
		if err := h.undefine(ctx, id); err != nil {
			return err
		}
		w.pace = pace{}
		return h.bringUp(ctx, w)
	})
}

// shutDown asks the guest to shut down until it has. It fails when the VM's desired state is no
// longer want.
func (h *Host) shutDown(ctx context.Context, m gateway.VM, want gateway.Desired) error {
	ctx, cancel := context.WithTimeoutCause(ctx, h.cfg.StopTimeout, errStubborn(m.Name, h.cfg.StopTimeout))
	defer cancel()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var requested time.Time
	for acpi := false; ; {
		state, err := h.virt.State(ctx, m.ID)
		if err == nil && hasEnded(state) {
			return nil
		}
		if err == nil && time.Since(requested) > requestEvery {
			err, requested = h.requestShutdown(ctx, m.ID, acpi), time.Now()
			acpi = true // only the first request goes to the agent, which may be stuck
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			return err
		}
		if now, ok := h.dir.ByID(m.ID); !ok || now.Desired != want {
			return errChanged()
		}
		select {
		case <-ctx.Done():
		case <-poll.C:
		}
	}
}

// hasEnded reports whether a domain in this state has no QEMU.
func hasEnded(state libvirt.State) bool {
	switch state {
	case libvirt.Absent, libvirt.Off, libvirt.PoweredOff, libvirt.Saved, libvirt.Migrated:
		return true
	default:
		return false
	}
}

// requestShutdown asks the guest to shut down. An agent that does not answer is no error: the power
// button follows.
func (h *Host) requestShutdown(ctx context.Context, id gateway.ID, acpi bool) error {
	if acpi {
		return h.virt.Shutdown(ctx, id, true)
	}
	limited, cancel := context.WithTimeout(ctx, requestEvery)
	defer cancel()
	if err := h.virt.Shutdown(limited, id, false); err == nil {
		return nil
	}
	return h.virt.Shutdown(ctx, id, true)
}

func errStubborn(name string, limit time.Duration) error {
	return gateway.Errorf(gateway.KindConflict, "%s did not shut down within %s", name, limit).
		WithHint("It may still do so. To force it off: lodge stop --force %s", name)
}

// bringUp starts the VM's domain, if its desired state is still Running: a new incarnation, then
// its identity, then the domain. The caller holds the worker's turn.
func (h *Host) bringUp(ctx context.Context, w *worker) error {
	if err := h.settleDisk(ctx, w.id, libvirt.Off); err != nil {
		return err
	}
	h.flattenDeep(ctx, w.id)
	return h.starting(ctx, w, func() error {
		m, err := h.nextIncarnation(ctx, w.id)
		if err != nil {
			return err
		}
		def, err := h.definition(ctx, m)
		if err != nil {
			return err
		}
		if err := h.identify(ctx, w, m.Identity); err != nil {
			return err
		}
		w.startsNow(logSize(def.Log))
		if err := h.virt.Start(ctx, def); err != nil {
			return err
		}
		h.log.InfoContext(ctx, "VM was started", "vm", m.Name)
		return nil
	})
}

// nextIncarnation records a start of a VM, if its desired state is still Running.
func (h *Host) nextIncarnation(ctx context.Context, id gateway.ID) (gateway.VM, error) {
	return h.dir.Update(ctx, id, func(m *gateway.VM) error {
		if m.Desired != gateway.Running {
			return errChanged()
		}
		m.Incarnation++
		m.Restarting = false
		return nil
	})
}

// restore starts the VM's domain from its saved memory, if its desired state is still Running. The
// incarnation stays, so programs in the guest keep their credentials. The caller holds the worker's
// turn.
func (h *Host) restore(ctx context.Context, w *worker) error {
	if err := h.settleDisk(ctx, w.id, libvirt.Saved); err != nil {
		return err
	}
	return h.starting(ctx, w, func() error {
		m, ok := h.dir.ByID(w.id)
		if !ok || m.Desired != gateway.Running {
			return errChanged()
		}
		if err := h.identify(ctx, w, m.Identity); err != nil {
			return err
		}
		w.startsNow(restored)
		if err := h.virt.Restore(ctx, w.id); err != nil {
			return gateway.Errorf(gateway.KindOf(err), "restore the saved memory: %v", err).Because(err).
				WithHint("To boot without it: lodge stop --force %s; lodge start %s", m.Name, m.Name)
		}
		h.log.InfoContext(ctx, "VM was restored from its saved memory", "vm", m.Name)
		return nil
	})
}

// starting calls f when fewer than Config.StartsAtOnce starts are under way.
func (h *Host) starting(ctx context.Context, w *worker, f func() error) error {
	select {
	case h.starts <- struct{}{}:
		defer func() { <-h.starts }()
	case <-ctx.Done():
		return ctx.Err()
	}
	w.setStarting(true)
	defer w.setStarting(false)
	return f()
}

func errChanged() error {
	return gateway.Errorf(gateway.KindConflict, "the VM's desired state changed while this was running")
}

// definition returns the VM's definition for libvirt. It needs the image only to probe KVM.
func (h *Host) definition(ctx context.Context, m gateway.VM) (libvirt.Definition, error) {
	def := libvirt.Definition{
		VM: m.Identity, CPUs: m.CPUs, MemoryMiB: m.MemoryMiB, Generation: gateway.NewID(),
		Seed: h.cfg.seedFile(m.ID), Console: h.cfg.consoleFile(m.ID), Log: h.cfg.logFile(m.ID),
	}
	if err := h.setDisks(&def, m); err != nil {
		return def, err
	}
	if m.DirectBoot {
		if err := h.setBoot(&def); err != nil {
			return def, err
		}
	}
	kvm, err := h.accel.UseKVM(ctx, func() (string, error) {
		img, err := image.Open(h.cfg.imageDir(), m.Image)
		return img.Kernel, err
	})
	def.KVM = kvm
	return def, err
}

// wants reports whether this is the VM's desired state.
func (h *Host) wants(id gateway.ID, want gateway.Desired) bool {
	m, ok := h.dir.ByID(id)
	return ok && m.Desired == want
}

func (h *Host) vm(id gateway.ID) gateway.Identity {
	m, _ := h.dir.ByID(id)
	return m.Identity
}
