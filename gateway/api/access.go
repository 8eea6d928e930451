package api

import (
	"context"
	"fmt"
	"slices"

	"lodge/gateway"
)

// Access is all that opens a VM.
type Access struct {
	VM       string       `json:"vm"`
	Rev      uint64       `json:"rev"` // of ports and grants, for a change that must not undo another one
	Ports    []PortAccess `json:"ports"`
	Buckets  []PortAccess `json:"buckets"`  // those that are shared
	Grants   []Grant      `json:"grants"`   // may open all ports
	Links    []Pass       `json:"links"`    // each opens one port that is shared by link
	Tokens   []Pass       `json:"tokens"`   // for scripts
	Forwards []Forward    `json:"forwards"` // whoever reaches the host's port reaches the VM

	Requests []AccessRequest `json:"requests"` // for ports that are not open to who asks
}

// PortAccess is who may open a port of a VM, or a bucket.
type PortAccess struct {
	Share
	URL      string   `json:"url"`
	Domains  []string `json:"domains"`            // custom domains that lead to it
	Bypass   []string `json:"bypass"`             // custom domains that are passed through to it: everyone may connect there
	Stranger int      `json:"stranger,omitempty"` // the status that a stranger gets: 401, or what the VM's state gives everyone
	Sees     string   `json:"sees"`               // the same in words
}

// Access returns all that opens a VM, and what a stranger sees at each port.
func (s Session) Access(ctx context.Context, name string) (Access, error) {
	m, err := s.vm(verbAccess, name)
	if err != nil {
		return Access{}, err
	}
	a := Access{VM: m.Name, Rev: m.ShareRev + 1, Grants: s.grants(m), Forwards: []Forward{}}
	a.Requests = s.requests(func(other gateway.VM) bool { return other.ID == m.ID })
	ports := []uint16{gateway.DefaultPort}
	for _, share := range m.Shares {
		ports = append(ports, share.Port)
	}
	for _, d := range m.Domains {
		ports = append(ports, d.Port)
	}
	slices.Sort(ports)
	ports = slices.Compact(ports)
	a.Buckets = s.bucketAccess(m)
	open := s.openPorts(ctx, m)
	for _, port := range ports {
		a.Ports = append(a.Ports, s.portAccess(ctx, m, port, slices.Contains(open, port)))
	}
	if a.Links, err = s.passes(ctx, m, gateway.LinkPass); err != nil {
		return Access{}, err
	}
	if a.Tokens, err = s.passes(ctx, m, gateway.TokenPass); err != nil {
		return Access{}, err
	}
	for _, status := range s.api.Forwarder.List() {
		if status.VM == m.ID {
			a.Forwards = append(a.Forwards, s.forward(status))
		}
	}
	return a, nil
}

// openPorts returns those public ports of a VM, but for the one of its name, where something
// listens.
func (s Session) openPorts(ctx context.Context, m gateway.VM) []uint16 {
	var public []uint16
	for _, share := range m.Shares {
		if share.Port != gateway.DefaultPort && share.Visibility == gateway.Public {
			public = append(public, share.Port)
		}
	}
	if len(public) == 0 || m.Desired != gateway.Running {
		return nil
	}
	return s.api.Ports.Listening(ctx, m, public)
}

func (s Session) portAccess(ctx context.Context, m gateway.VM, port uint16, open bool) PortAccess {
	a := PortAccess{Share: s.showShare("", m.Share(port)), URL: s.api.Web.URL(m, port), Domains: []string{}, Bypass: []string{}}
	for _, d := range m.Domains {
		switch {
		case d.Port != port:
		case d.Passthrough:
			a.Bypass = append(a.Bypass, d.Name)
		default:
			a.Domains = append(a.Domains, d.Name)
		}
	}
	a.Stranger, a.Sees = s.strangerSees(ctx, m, port, open)
	return a
}

// strangerSees returns the status that a stranger gets at a port now, and the words for it; open is
// whether anything listens there.
func (s Session) strangerSees(ctx context.Context, m gateway.VM, port uint16, open bool) (int, string) {
	listens := func() bool {
		if port == gateway.DefaultPort {
			_, ok := s.api.Ports.Probe(ctx, m)
			return ok
		}
		return open
	}
	switch visibility := m.Visibility(port); {
	case visibility != gateway.Public:
		return 401, "a page that says to log in"
	case m.Desired != gateway.Running && m.WakeOnRequest:
		return 0, "the app, once the VM is woken"
	case m.Desired != gateway.Running:
		return 503, fmt.Sprintf("that %s is stopped", m.Name)
	case !listens():
		return 502, "that nothing listens there"
	}
	return 0, "the app"
}
