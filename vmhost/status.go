package vmhost

import (
	"context"

	"lodge/gateway"
	"lodge/vmhost/libvirt"
)

// Status says how the VM is now and, where that is not as desired, why.
func (h *Host) Status(ctx context.Context, id gateway.ID) gateway.Status {
	m, ok := h.dir.ByID(id)
	switch {
	case !ok:
		return gateway.Status{State: "unknown", Reason: "the VM is gone"}
	case m.Desired == gateway.Removed:
		return gateway.Status{State: "stopping", Reason: h.because(id, "it is being removed")}
	case !m.Ready:
		return gateway.Status{State: "starting", Reason: "it is being made"}
	}
	state, err := h.virt.State(ctx, id)
	if err != nil {
		return gateway.Status{State: "unknown", Reason: explain(err)}
	}
	return h.status(m, state)
}

func (h *Host) status(m gateway.VM, state libvirt.State) gateway.Status {
	switch state {
	case libvirt.Running, libvirt.Suspended:
		if m.Desired == gateway.Stopped {
			return gateway.Status{State: "stopping", Reason: "its guest has not shut down yet. To pull its plug: lodge stop --force " + m.Name}
		}
		return gateway.Status{State: "running", Reason: h.because(m.ID, "")}
	case libvirt.PausedFull:
		return gateway.Status{State: "crashed", Reason: "it waits for room on the host's disk, which is full, and goes on by itself. Make room: df -h " + h.cfg.diskDir()}
	case libvirt.Paused:
		return gateway.Status{State: "stopped", Reason: "it was paused through libvirt. To go on: lodge start " + m.Name}
	case libvirt.Migrated:
		return gateway.Status{State: "stopped", Reason: "it was migrated to another host; its disk here is out of date"}
	case libvirt.Saved:
		if m.Desired == gateway.Stopped {
			return gateway.Status{State: "stopped", Reason: "its memory is saved. To go on from there: lodge start " + m.Name}
		}
		return h.statusOff(m)
	case libvirt.Absent, libvirt.Off, libvirt.PoweredOff:
		return h.statusOff(m)
	default:
		return gateway.Status{State: "unknown", Reason: "libvirt calls its state " + string(state)}
	}
}

// statusOff is the status of a VM whose domain does not run.
func (h *Host) statusOff(m gateway.VM) gateway.Status {
	if m.Desired == gateway.Stopped {
		return gateway.Status{State: "stopped"}
	}
	trouble, starting := h.worker(m.ID).situation()
	if trouble != nil && !starting {
		return gateway.Status{State: "crashed", Reason: explain(trouble)}
	}
	return gateway.Status{State: "starting"}
}

// because is what the worker has met last, or otherwise.
func (h *Host) because(id gateway.ID, otherwise string) string {
	if trouble, _ := h.worker(id).situation(); trouble != nil {
		return explain(trouble)
	}
	return otherwise
}
