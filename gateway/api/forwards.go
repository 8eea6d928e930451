package api

import (
	"context"
	"log/slog"
	"net/netip"

	"lodge/gateway"
)

// Forward is a port of the host that leads to a port of a VM.
type Forward struct {
	VM string `json:"vm"` // the VM's name
	gateway.HostPort
	VMPort uint16       `json:"vm_port"`
	Addrs  []netip.Addr `json:"addrs"`            // of the host, where it listens
	State  string       `json:"state"`            // "listening", or "failed": not on every address
	Reason string       `json:"reason,omitempty"` // why it failed; lodged tries again every 10 s
}

// Forward opens a port of the host that leads to a VM. The VM in f is ignored.
func (s Session) Forward(ctx context.Context, name string, f gateway.Forward) (Forward, error) {
	m, err := s.vm(verbForward, name)
	if err != nil {
		return Forward{}, err
	}
	f.VM = m.ID
	status, err := s.api.Forwarder.Add(ctx, f)
	if err != nil {
		return Forward{}, err
	}
	s.audit(ctx, gateway.EventPortForwarded, gateway.LogVM(m.Identity), slog.String("port", f.String()))
	return s.forward(status), nil
}

// Forwards lists the forwarded ports, in their order.
func (s Session) Forwards(context.Context) ([]Forward, error) {
	if err := s.allowed(verbForwards); err != nil {
		return nil, err
	}
	all := []Forward{} // not nil: an empty list is [] in JSON
	for _, status := range s.api.Forwarder.List() {
		all = append(all, s.forward(status))
	}
	return all, nil
}

// RemoveForward closes a forwarded port, and what is open through it.
func (s Session) RemoveForward(ctx context.Context, port gateway.HostPort) error {
	if err := s.allowed(verbRemoveForward); err != nil {
		return err
	}
	err := s.api.Forwarder.Remove(ctx, port)
	if err == nil {
		s.audit(ctx, gateway.EventForwardEnded, slog.String("port", port.String()))
	}
	return err
}

func (s Session) forward(status gateway.ForwardStatus) Forward {
	m, _ := s.api.Directory.ByID(status.VM) // a VM takes its forwards with it
	f := Forward{VM: m.Name, HostPort: status.HostPort, VMPort: status.VMPort, Addrs: status.Addrs, State: "listening"}
	if status.Err != nil {
		f.State, f.Reason = "failed", status.Err.Error()
	}
	return f
}
