package control

import (
	"context"
	"net/http"
	"net/netip"

	"lodge/gateway"
	"lodge/gateway/api"
)

// ForwardRequest is the body that forwards a port.
type ForwardRequest struct {
	gateway.HostPort
	VMPort uint16     `json:"vm_port"`
	Addr   netip.Addr `json:"addr,omitzero"` // of the host; without it, each address of the setting listen
}

func forward(s api.Session, ctx context.Context, name string, in ForwardRequest) (api.Forward, error) { //nolint:revive // the order of method expressions
	return s.Forward(ctx, name, gateway.Forward{HostPort: in.HostPort, Addr: in.Addr, VMPort: in.VMPort})
}

func (s *Server) removeForward(w http.ResponseWriter, r *http.Request) error {
	port, err := gateway.ParseHostPort(r.PathValue("host_port") + "/" + r.PathValue("protocol"))
	if err != nil {
		return err
	}
	if err := s.as(r).RemoveForward(r.Context(), port); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Forward opens a port of the host that leads to a VM. The VM in f is ignored.
func (c *Client) Forward(ctx context.Context, name string, f gateway.Forward) (api.Forward, error) {
	var made api.Forward
	err := c.onVM(ctx, http.MethodPost, name, "/forwards", ForwardRequest{HostPort: f.HostPort, VMPort: f.VMPort, Addr: f.Addr}, &made)
	return made, err
}

// Forwards lists the forwarded ports, in their order.
func (c *Client) Forwards(ctx context.Context) ([]api.Forward, error) {
	var all []api.Forward
	err := c.call(ctx, http.MethodGet, "/v1/forwards", nil, &all)
	return all, err
}

// RemoveForward closes a forwarded port.
func (c *Client) RemoveForward(ctx context.Context, port gateway.HostPort) error {
	if err := port.Check(); err != nil {
		return err
	}
	return c.call(ctx, http.MethodDelete, "/v1/forwards/"+port.String(), nil, nil)
}
