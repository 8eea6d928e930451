package libvirt

import (
	"context"
	"strings"

	"lodge/gateway"

	rpc "github.com/digitalocean/go-libvirt"
)

// namePrefix and the VM's UUID make the name of a domain of ours.
const namePrefix = "lodge-"

// State is what libvirt says of a domain.
type State string

// The states of a domain.
const (
	Absent     State = "absent"      // libvirt does not know it
	Running    State = "running"     // or on its way down
	Paused     State = "paused"      // stopped by somebody's hand
	PausedFull State = "paused-full" // stopped by QEMU, because its disk could not be written (the host's is full)
	PoweredOff State = "powered-off" // shut down in order, by the guest itself or at our request
	Off        State = "off"         // not running for any other reason: crashed, destroyed, or the host was rebooted
	Suspended  State = "suspended"   // asleep by the guest's own wish
	Unknown    State = "unknown"     // a state that libvirt has no name for
)

// List returns the VMs that have a domain of ours, running or not.
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

// DomainName is what the VM's domain is called in libvirt.
func DomainName(id gateway.ID) string { return namePrefix + id.String() }

// State asks for the state of the VM's domain.
func (c *Client) State(ctx context.Context, id gateway.ID) (State, error) {
	var state, reason int32
	err := c.call(ctx, "tell the state of the VM", func(l *rpc.Libvirt) (err error) {
		state, reason, err = l.DomainGetState(domain(id), 0)
		return err
	})
	switch {
	case code(err) == rpc.ErrNoDomain:
		return Absent, nil
	case err != nil:
		return Unknown, err
	}
	return stateOf(rpc.DomainState(state), reason), nil
}

func stateOf(state rpc.DomainState, reason int32) State {
	switch state {
	case rpc.DomainRunning, rpc.DomainBlocked, rpc.DomainShutdown:
		return Running
	case rpc.DomainPaused:
		if rpc.DomainPausedReason(reason) == rpc.DomainPausedIoerror {
			return PausedFull
		}
		return Paused
	case rpc.DomainShutoff:
		if rpc.DomainShutoffReason(reason) == rpc.DomainShutoffShutdown {
			return PoweredOff
		}
		return Off
	case rpc.DomainCrashed:
		return Off
	case rpc.DomainPmsuspended:
		return Suspended
	default:
		return Unknown
	}
}

// Start defines the VM's domain afresh and starts it. The domain is defined, not transient, so that libvirt can still
// say why it ended when nobody was listening. The old definition goes first: libvirt would keep its last reason for the new one.
// When the domain does not start nothing stays behind.
func (c *Client) Start(ctx context.Context, def Definition) error {
	text, err := def.XML()
	if err != nil {
		return err
	}
	if err := c.Undefine(ctx, def.VM.ID); err != nil {
		return err
	}
	err = c.callFor(ctx, c.startTimeout, startTheVM, func(l *rpc.Libvirt) error {
		d, err := l.DomainDefineXMLFlags(text, rpc.DomainDefineValidate)
		if err != nil {
			return err
		}
		_, err = l.DomainCreateWithFlags(d, 0)
		return err
	})
	if err != nil && answered(err) {
		_ = c.Undefine(ctx, def.VM.ID) // a definition that is left is replaced by the next Start
	}
	return err
}

// startTheVM is what Start does, for error texts.
const startTheVM = "start the VM"

// Undefine forgets a domain that is off. It is no error when libvirt does not know it.
func (c *Client) Undefine(ctx context.Context, id gateway.ID) error {
	return c.change(ctx, "forget the VM", func(l *rpc.Libvirt) error {
		return l.DomainUndefineFlags(domain(id), rpc.DomainUndefineManagedSave|rpc.DomainUndefineSnapshotsMetadata|
			rpc.DomainUndefineCheckpointsMetadata|rpc.DomainUndefineNvram)
	})
}

// Shutdown asks the guest to shut down, by its agent or, where acpi says so, by the power button. It does not wait.
func (c *Client) Shutdown(ctx context.Context, id gateway.ID, acpi bool) error {
	flags := rpc.DomainShutdownDefault
	if acpi {
		flags = rpc.DomainShutdownAcpiPowerBtn
	}
	return c.change(ctx, "shut the VM down", func(l *rpc.Libvirt) error { return l.DomainShutdownFlags(domain(id), flags) })
}

// Destroy ends the VM at once, as pulling its plug does. It is no error when it does not run.
func (c *Client) Destroy(ctx context.Context, id gateway.ID) error {
	return c.change(ctx, "stop the VM", func(l *rpc.Libvirt) error { return l.DomainDestroyFlags(domain(id), 0) })
}

// Resume lets a paused VM go on.
func (c *Client) Resume(ctx context.Context, id gateway.ID) error {
	return c.change(ctx, "resume the VM", func(l *rpc.Libvirt) error { return l.DomainResume(domain(id)) })
}

// change is call for verbs that have nothing left to do on a domain that is absent or not running.
func (c *Client) change(ctx context.Context, what string, f func(*rpc.Libvirt) error) error {
	err := c.call(ctx, what, f)
	notRunning := code(err) == rpc.ErrOperationInvalid && strings.Contains(err.Error(), "not running")
	if code(err) == rpc.ErrNoDomain || notRunning {
		return nil
	}
	return err
}

// domain is how the protocol names a domain: libvirtd looks at the UUID only.
func domain(id gateway.ID) rpc.Domain {
	return rpc.Domain{Name: DomainName(id), UUID: rpc.UUID(id), ID: -1}
}
