package vmhost

import (
	"context"
	"fmt"
	"time"

	"lodge/gateway"
	"lodge/vmhost/libvirt"
)

// statusesLimit is how long Statuses waits for libvirtd.
const statusesLimit = 2 * time.Second

// Status returns the VM's present state and, where that is not the desired one, the reason.
func (h *Host) Status(ctx context.Context, id gateway.ID) gateway.Status {
	m, ok := h.dir.ByID(id)
	if !ok {
		return gateway.Status{State: "unknown", Reason: "the VM is gone"}
	}
	if status, ok := h.statusByRecord(m); ok {
		return status
	}
	state, err := h.virt.State(ctx, id)
	if err != nil {
		return gateway.Status{State: "unknown", Reason: explain(err)}
	}
	return h.status(m, state)
}

// Statuses is Status for all VMs, by one call to libvirtd. If libvirtd does not answer within 2 s,
// VMs are "unknown".
func (h *Host) Statuses(ctx context.Context) map[gateway.ID]gateway.Status {
	ctx, cancel := context.WithTimeout(ctx, statusesLimit)
	defer cancel()
	states, err := h.virt.States(ctx)
	all := h.dir.All()
	statuses := make(map[gateway.ID]gateway.Status, len(all))
	for _, m := range all {
		status, ok := h.statusByRecord(m)
		switch {
		case ok:
		case err != nil:
			status = gateway.Status{State: "unknown", Reason: explain(err)}
		default:
			state, ok := states[m.ID]
			if !ok {
				state = libvirt.Absent
			}
			status = h.status(m, state)
		}
		statuses[m.ID] = status
	}
	return statuses
}

// statusByRecord is the status of a VM that is being made or removed, which needs no call to
// libvirtd.
func (h *Host) statusByRecord(m gateway.VM) (status gateway.Status, ok bool) {
	switch {
	case m.Desired == gateway.Removed:
		return gateway.Status{State: "stopping", Reason: h.because(m.ID, "it is being removed")}, true
	case !m.Ready:
		return gateway.Status{State: "starting", Reason: "it is being made"}, true
	default:
		return gateway.Status{}, false
	}
}

func (h *Host) status(m gateway.VM, state libvirt.State) gateway.Status {
	switch state {
	case libvirt.Running, libvirt.Suspended:
		if m.Desired == gateway.Stopped {
			return gateway.Status{State: "stopping", Reason: "its guest has not shut down yet. To force it off: lodge stop --force " + m.Name}
		}
		otherwise := ""
		if m.Restarting {
			otherwise = "its guest has not shut down yet for a restart. To force it: lodge stop --force " + m.Name + "; lodge start " + m.Name
		}
		return gateway.Status{State: "running", Reason: h.because(m.ID, otherwise)}
	case libvirt.PausedFull:
		return gateway.Status{State: "crashed", Reason: "it is paused because the host's disk is full, and resumes by itself. Make room: df -h " + h.cfg.diskDir()}
	case libvirt.Paused:
		return gateway.Status{State: "stopped", Reason: "it was paused through libvirt. To resume it: lodge start " + m.Name}
	case libvirt.Migrated:
		return statusMigrated()
	case libvirt.Saved:
		if m.Desired == gateway.Stopped {
			return gateway.Status{State: "stopped", Reason: "its memory is saved. To resume it: lodge start " + m.Name}
		}
		return h.statusOff(m)
	case libvirt.Absent, libvirt.Off, libvirt.PoweredOff:
		return h.statusOff(m)
	default:
		return gateway.Status{State: "unknown", Reason: "libvirt reports the state " + string(state)}
	}
}

func statusMigrated() gateway.Status {
	return gateway.Status{State: "stopped", Reason: "it was migrated to another host; its disk here is out of date"}
}

// statusOff is the status of a VM whose domain does not run.
func (h *Host) statusOff(m gateway.VM) gateway.Status {
	switch {
	case m.Migrated:
		return statusMigrated()
	case m.Desired == gateway.Stopped:
		return gateway.Status{State: "stopped"}
	}
	now := h.worker(m.ID).situation()
	switch {
	case now.starting:
		return gateway.Status{State: "starting"}
	case now.trouble != nil:
		return gateway.Status{State: "crashed", Reason: explain(now.trouble) + now.nextStart(m.Name)}
	case now.ended > 0:
		return gateway.Status{State: "starting", Reason: fmt.Sprintf("it has ended; automatic starts in a row: %d", now.ended) + now.nextStart(m.Name)}
	default:
		return gateway.Status{State: "starting"}
	}
}

// nextStart is the part of a reason that names the time of the next start; empty when that is not
// in the future.
func (s situation) nextStart(name string) string {
	wait := time.Until(s.nextTry).Round(time.Second)
	if wait <= 0 {
		return ""
	}
	return fmt.Sprintf(". Next start at %s, in %s. To start it now: lodge start %s", s.nextTry.Format(time.TimeOnly), wait, name)
}

// because returns the error of the worker's last reconcile, or otherwise if there was none.
func (h *Host) because(id gateway.ID, otherwise string) string {
	if now := h.worker(id).situation(); now.trouble != nil {
		return explain(now.trouble)
	}
	return otherwise
}
