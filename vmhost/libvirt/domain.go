package libvirt

import (
	"context"
	"slices"
	"strings"
	"time"

	"lodge/gateway"

	rpc "github.com/digitalocean/go-libvirt"
)

// namePrefix and the VM's UUID make the name of a domain of Lodge.
const namePrefix = "lodge-"

// State is the state of a domain in libvirt.
type State string

// The states of a domain.
const (
	Absent     State = "absent"      // libvirt has no such domain
	Running    State = "running"     // or shutting down
	Paused     State = "paused"      // by an administrator
	PausedFull State = "paused-full" // stopped by QEMU, because its disk could not be written (the host's is full)
	PoweredOff State = "powered-off" // shut down cleanly, by the guest itself or on request
	Saved      State = "saved"       // not running, with its memory in libvirt's save file (virsh managedsave, libvirt-guests)
	Migrated   State = "migrated"    // migrated to another host: its disk here is out of date
	Off        State = "off"         // not running for any other reason: crashed, destroyed, or the host was rebooted
	Suspended  State = "suspended"   // suspended by the guest itself
	Unknown    State = "unknown"     // a state without a name in libvirt
)

// List returns the VMs that have a domain of Lodge, running or not.
func (c *Client) List(ctx context.Context) ([]gateway.ID, error) {
	var domains []rpc.Domain
	err := c.call(ctx, "list the domains", func(l *rpc.Libvirt) (err error) {
		domains, _, err = l.ConnectListAllDomains(1, rpc.ConnectListDomainsActive|rpc.ConnectListDomainsInactive)
		return err
	})
	if err != nil {
		return nil, err
	}
	var ids []gateway.ID
	for _, d := range domains {
		if id := gateway.ID(d.UUID); d.Name == DomainName(id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// DomainName is the name of the VM's domain in libvirt.
func DomainName(id gateway.ID) string { return namePrefix + id.String() }

// State returns the state of the VM's domain.
func (c *Client) State(ctx context.Context, id gateway.ID) (State, error) {
	var state, reason, saved int32
	err := c.call(ctx, "read the state of the VM", func(l *rpc.Libvirt) (err error) {
		state, reason, err = l.DomainGetState(domain(id), 0)
		if err == nil && rpc.DomainState(state) == rpc.DomainShutoff { // libvirtd does not keep the reason when it restarts
			saved, err = l.DomainHasManagedSaveImage(domain(id), 0)
		}
		return err
	})
	switch {
	case code(err) == rpc.ErrNoDomain:
		return Absent, nil
	case err != nil:
		return Unknown, err
	}
	return stateOf(rpc.DomainState(state), reason, saved == 1), nil
}

// States returns the states of all domains of Lodge by one or two calls, whatever their number. A
// VM that is missing is Absent.
func (c *Client) States(ctx context.Context) (map[gateway.ID]State, error) {
	var records []rpc.DomainStatsRecord
	var saved []rpc.Domain
	err := c.call(ctx, "read the states of the VMs", func(l *rpc.Libvirt) (err error) {
		records, err = l.ConnectGetAllDomainStats(nil, uint32(rpc.DomainStatsState), uint32(rpc.ConnectGetAllDomainsStatsNowait))
		if err == nil && slices.ContainsFunc(records, isShutoff) {
			saved, _, err = l.ConnectListAllDomains(1, rpc.ConnectListDomainsManagedsave)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	hasSave := make(map[rpc.UUID]bool, len(saved))
	for _, d := range saved {
		hasSave[d.UUID] = true
	}
	states := make(map[gateway.ID]State, len(records))
	for _, r := range records {
		if id := gateway.ID(r.Dom.UUID); r.Dom.Name == DomainName(id) {
			states[id] = stateOf(rpc.DomainState(param(r, "state.state")), param(r, "state.reason"), hasSave[r.Dom.UUID])
		}
	}
	return states, nil
}

func isShutoff(r rpc.DomainStatsRecord) bool {
	return rpc.DomainState(param(r, "state.state")) == rpc.DomainShutoff
}

// param returns an integer from a domain's statistics; 0, which is "no state" and "unknown reason",
// if the name is missing.
func param(r rpc.DomainStatsRecord, name string) int32 {
	for _, p := range r.Params {
		if n, ok := p.Value.I.(int32); ok && p.Field == name {
			return n
		}
	}
	return 0
}

func stateOf(state rpc.DomainState, reason int32, saved bool) State {
	switch state {
	case rpc.DomainRunning, rpc.DomainBlocked, rpc.DomainShutdown, rpc.DomainCrashed:
		return Running // a guest that has panicked is about to be restarted by libvirtd, in the same QEMU
	case rpc.DomainPaused:
		if rpc.DomainPausedReason(reason) == rpc.DomainPausedIoerror {
			return PausedFull
		}
		return Paused
	case rpc.DomainShutoff:
		return stateOfShutoff(rpc.DomainShutoffReason(reason), saved)
	case rpc.DomainPmsuspended:
		return Suspended
	default:
		return Unknown
	}
}

func stateOfShutoff(reason rpc.DomainShutoffReason, saved bool) State {
	switch {
	case reason == rpc.DomainShutoffMigrated:
		return Migrated
	case saved:
		return Saved
	case reason == rpc.DomainShutoffShutdown:
		return PoweredOff
	default:
		return Off
	}
}

// Start defines the VM's domain afresh and starts it. The domain is defined, not transient, so that
// libvirt can report why it ended even if no client was connected. Start removes the old definition
// first, with a saved memory: libvirt would keep its last reason for the new one. When the domain
// does not start, nothing is left.
func (c *Client) Start(ctx context.Context, def Definition) error {
	text, err := def.XML()
	if err != nil {
		return err
	}
	if err := c.Undefine(ctx, def.VM.ID); err != nil {
		return err
	}
	err = c.callFor(ctx, c.startTimeout, startTheVM, func(l *rpc.Libvirt) error {
		d, err := l.DomainDefineXML(text)
		if err != nil {
			return err
		}
		_, err = l.DomainCreateWithFlags(d, 0)
		return err
	})
	if err != nil && answered(err) {
		_ = c.Undefine(ctx, def.VM.ID) // the next Start replaces a definition that is left
	}
	return err
}

// startTheVM names Start and Restore in error texts.
const startTheVM = "start the VM"

// Restore starts the VM's domain, which is Saved, with the memory that it had.
func (c *Client) Restore(ctx context.Context, id gateway.ID) error {
	return c.callFor(ctx, c.startTimeout, startTheVM, func(l *rpc.Libvirt) error {
		_, err := l.DomainCreateWithFlags(domain(id), 0)
		return err
	})
}

// Undefine removes a domain that is off, with its saved memory. It is no error when there is none.
func (c *Client) Undefine(ctx context.Context, id gateway.ID) error {
	return c.change(ctx, "undefine the VM", func(l *rpc.Libvirt) error {
		return l.DomainUndefineFlags(domain(id), rpc.DomainUndefineManagedSave|rpc.DomainUndefineSnapshotsMetadata|
			rpc.DomainUndefineCheckpointsMetadata|rpc.DomainUndefineNvram)
	})
}

// Shutdown asks the guest to shut down, by its agent or, with acpi, by the power button. It does
// not wait.
func (c *Client) Shutdown(ctx context.Context, id gateway.ID, acpi bool) error {
	flags := rpc.DomainShutdownDefault
	if acpi {
		flags = rpc.DomainShutdownAcpiPowerBtn
	}
	return c.change(ctx, "shut the VM down", func(l *rpc.Libvirt) error { return l.DomainShutdownFlags(domain(id), flags) })
}

// Destroy ends the VM at once, without asking the guest. It is no error when it does not run.
func (c *Client) Destroy(ctx context.Context, id gateway.ID) error {
	return c.change(ctx, "stop the VM", func(l *rpc.Libvirt) error { return l.DomainDestroyFlags(domain(id), 0) })
}

// Resume continues a paused VM.
func (c *Client) Resume(ctx context.Context, id gateway.ID) error {
	return c.change(ctx, "resume the VM", func(l *rpc.Libvirt) error { return l.DomainResume(domain(id)) })
}

// SetClock has the guest's agent set the clock, which stands still while a guest's memory is kept.
func (c *Client) SetClock(ctx context.Context, id gateway.ID, now time.Time) error {
	defer c.setAgentTimeout(ctx, id, agentTimeoutDefault)
	c.setAgentTimeout(ctx, id, int32(agentLimit/time.Second))
	return c.call(ctx, "set the clock of the guest", func(l *rpc.Libvirt) error {
		return l.DomainSetTime(domain(id), now.Unix(), uint32(now.Nanosecond()), 0) //nolint:gosec // below 1e9
	})
}

// change is call for operations that succeed without effect on a domain that is absent or not
// running.
func (c *Client) change(ctx context.Context, what string, f func(*rpc.Libvirt) error) error {
	err := c.call(ctx, what, f)
	notRunning := code(err) == rpc.ErrOperationInvalid && strings.Contains(err.Error(), "not running")
	if code(err) == rpc.ErrNoDomain || notRunning {
		return nil
	}
	return err
}

// domain is a domain in the protocol: libvirtd reads the UUID only.
func domain(id gateway.ID) rpc.Domain {
	return rpc.Domain{Name: DomainName(id), UUID: rpc.UUID(id), ID: -1}
}
