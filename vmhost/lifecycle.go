package vmhost

import (
	"context"
	"time"

	"lodge/gateway"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt"
)

// While a guest shuts down its state is asked for every pollEvery, and its power button is pressed every requestEvery: a guest
// that has not booted far enough does not feel the first one.
const (
	pollEvery    = 250 * time.Millisecond
	requestEvery = 5 * time.Second
)

// Start starts the VM if it does not run, from its saved memory if there is one. It returns once the domain runs; Wait waits
// for the guest. It fails with KindConflict for a VM that has left for another host.
func (h *Host) Start(ctx context.Context, id gateway.ID) error {
	return h.exclusively(ctx, id, func(w *worker) error {
		state, err := h.virt.State(ctx, id)
		switch {
		case err != nil:
			return err
		case state == libvirt.Migrated:
			return errMigrated(h.name(id), id)
		case state == libvirt.Off || state == libvirt.PoweredOff:
			// Removed before Running is recorded: after a crash in between, a domain that is powered off would mean that
			// the guest wants it so.
			if err := h.virt.Undefine(ctx, id); err != nil {
				return err
			}
		}
		m, err := h.desire(ctx, id, gateway.Running)
		if err != nil {
			return err
		}
		w.pace = pace{}
		return h.startFrom(ctx, w, m, state)
	})
}

// startFrom starts a VM whose domain is in this state, and which is to run.
func (h *Host) startFrom(ctx context.Context, w *worker, m gateway.VM, state libvirt.State) error {
	switch state {
	case libvirt.Paused, libvirt.PausedFull:
		return h.virt.Resume(ctx, m.ID)
	case libvirt.Running:
		return h.identify(ctx, w, m.Identity)
	case libvirt.Saved:
		return h.restore(ctx, w)
	default:
		return h.bringUp(ctx, w)
	}
}

func errMigrated(name string, id gateway.ID) error {
	return gateway.Errorf(gateway.KindConflict, "%s was migrated to another host, and its disk here is out of date", name).
		WithHint("To start it from that disk nevertheless: virsh undefine %s; lodge start %s", libvirt.DomainName(id), name)
}

// Stop shuts the guest down and waits for it, at most Config.StopTimeout: KindConflict when it does not react, with the VM
// still running and still to be stopped. With force it ends the VM at once, which is recorded, so that it is done later if
// libvirtd hangs now; force removes a saved memory as well.
func (h *Host) Stop(ctx context.Context, id gateway.ID, force bool) error {
	if _, err := h.begin(ctx, id); err != nil {
		return err
	}
	m, err := h.record(ctx, id, func(m *gateway.VM) {
		m.Desired, m.ForceStop = gateway.Stopped, m.ForceStop || force
	})
	if err != nil {
		return err
	}
	if force { // without the turn, which a start that hangs may have
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

// Restart shuts the guest down, as Stop does, and starts the VM again with a new incarnation. It starts a VM that is stopped.
// A daemon that is killed within the moment between the two leaves the VM stopped.
func (h *Host) Restart(ctx context.Context, id gateway.ID) error {
	return h.exclusively(ctx, id, func(w *worker) error { // else the worker would take the shutdown for the guest's own request
		state, err := h.virt.State(ctx, id)
		if err != nil {
			return err
		}
		if state == libvirt.Migrated {
			return errMigrated(h.name(id), id)
		}
		m, err := h.desire(ctx, id, gateway.Running)
		if err != nil {
			return err
		}
		if state == libvirt.Saved { // so that its guest can shut down in order
			if err := h.restore(ctx, w); err != nil {
				return err
			}
		}
		if err := h.shutDown(ctx, m, gateway.Running); err != nil {
			return err
		}
		if err := h.virt.Undefine(ctx, id); err != nil {
			return err
		}
		w.pace = pace{}
		return h.bringUp(ctx, w)
	})
}

// shutDown asks the guest to shut down until it has. It gives up when the VM is no longer to be as want says.
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
			acpi = true // the agent is asked first, and once: it may be stuck
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

// requestShutdown asks the guest to shut down. An agent that does not answer is no error: the power button follows.
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
		WithHint("It may still do so. To pull its plug: lodge stop --force %s", name)
}

// bringUp starts the VM's domain, if it is still to run: a new incarnation, then its identity, then the
// domain. The caller has the worker's turn.
func (h *Host) bringUp(ctx context.Context, w *worker) error {
	return h.starting(ctx, w, func() error {
		m, err := h.dir.Update(ctx, w.id, func(m *gateway.VM) error {
			if m.Desired != gateway.Running {
				return errChanged()
			}
			m.Incarnation++
			return nil
		})
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

// restore starts the VM's domain from its saved memory, if it is still to run. The incarnation stays: programs in the guest
// go on with the credentials that they have. The caller has the worker's turn.
func (h *Host) restore(ctx context.Context, w *worker) error {
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

// definition is the VM as libvirt is to run it. Its image is needed only to boot the kernel directly, and to prove KVM with it.
func (h *Host) definition(ctx context.Context, m gateway.VM) (libvirt.Definition, error) {
	def := libvirt.Definition{
		VM: m.Identity, CPUs: m.CPUs, MemoryMiB: m.MemoryMiB,
		Disk: h.cfg.diskFile(m.ID), DiskFormat: "raw", Seed: h.cfg.seedFile(m.ID),
		Console: h.cfg.consoleFile(m.ID), Log: h.cfg.logFile(m.ID),
	}
	if m.DirectBoot {
		img, err := image.Open(h.cfg.imageDir(), m.Image)
		if err != nil {
			return def, err
		}
		def.Kernel, def.Initrd, def.Cmdline = img.Kernel, img.Initrd, img.Cmdline
	}
	kvm, err := h.accel.UseKVM(ctx, func() (string, error) {
		img, err := image.Open(h.cfg.imageDir(), m.Image)
		return img.Kernel, err
	})
	def.KVM = kvm
	return def, err
}

func (h *Host) vm(id gateway.ID) gateway.Identity {
	m, _ := h.dir.ByID(id)
	return m.Identity
}
