package api

import (
	"context"
	"net/netip"
	"time"

	"lodge/gateway"
)

// VM is a VM as every face shows it. A field of the record (gateway.VM) is shown only if it is added here.
type VM struct {
	ID   gateway.ID `json:"id"`   // never used again
	Name string     `json:"name"` // part of its host names
	gateway.Status
	gateway.Size
	Addr       netip.Addr       `json:"addr"`        // IPv4 address, reachable from the host alone
	URL        string           `json:"url"`         // its page
	MailDomain string           `json:"mail_domain"` // mail to anything@ this goes to the VM
	Shares     []Share          `json:"shares"`      // what is not here is private
	Domains    []gateway.Domain `json:"domains"`     // custom domains that lead to it
	Created    time.Time        `json:"created"`

	WakeOnRequest bool `json:"wake_on_request"` // a web request starts the stopped VM, if its visitor may open the page
}

// show makes the VM that faces show of a record and its status. It is the only place that does.
func (s Session) show(m gateway.VM, status gateway.Status) VM {
	return VM{
		ID: m.ID, Name: m.Name, Status: status, Size: m.Size, Addr: m.Addr, Created: m.Created, WakeOnRequest: m.WakeOnRequest,
		URL:        s.api.Web.URL(m, gateway.DefaultPort),
		MailDomain: m.Name + "." + s.api.Domain,
		Shares:     s.showShares(m),
		Domains:    append([]gateway.Domain{}, m.Domains...),
	}
}

// Share is the visibility of a port as every face shows it.
type Share struct {
	Port       uint16             `json:"port"`           // 0: the one that the VM's own name leads to
	Visibility gateway.Visibility `json:"visibility"`     // "private", "people", "team", "link" or "public"
	With       []string           `json:"with,omitempty"` // the mail addresses and @domains, or the teams
}

func (s Session) showShares(m gateway.VM) []Share {
	shares := []Share{} // an empty list is [] in JSON
	for _, share := range m.Shares {
		shares = append(shares, s.showShare(share))
	}
	return shares
}

func (s Session) showShare(share gateway.Share) Share {
	shown := Share{Port: share.Port, Visibility: share.Visibility}
	for _, id := range share.With {
		if name := s.api.People.Name(id); name != "" { // else it is removed
			shown.With = append(shown.With, name)
		}
	}
	for _, domain := range share.Domains {
		shown.With = append(shown.With, "@"+domain)
	}
	return shown
}

// shown is show with the status of now.
func (s Session) shown(ctx context.Context, m gateway.VM) VM {
	return s.show(m, s.api.Observer.Status(ctx, m.ID))
}

// changed shows a VM as it is after a verb.
func (s Session) changed(ctx context.Context, id gateway.ID) (VM, error) {
	m, ok := s.api.Directory.ByID(id)
	if !ok {
		return VM{}, gateway.Errorf(gateway.KindNotFound, "the VM was removed meanwhile")
	}
	return s.shown(ctx, m), nil
}

// List returns all VMs, ordered by name.
func (s Session) List(ctx context.Context) ([]VM, error) {
	if err := s.allowed(verbList); err != nil {
		return nil, err
	}
	all := []VM{} // not nil: an empty list is [] in JSON
	statuses := s.api.Observer.Statuses(ctx)
	for _, m := range s.api.Directory.All() {
		status, ok := statuses[m.ID]
		if !ok { // made a moment ago
			status = gateway.Status{State: "starting"}
		}
		all = append(all, s.show(m, status))
	}
	return all, nil
}

// Show returns one VM.
func (s Session) Show(ctx context.Context, name string) (VM, error) {
	m, err := s.vm(verbShow, name)
	if err != nil {
		return VM{}, err
	}
	return s.shown(ctx, m), nil
}

// New makes a VM and starts it. After an error, or when ctx ends, nothing of it is left.
func (s Session) New(ctx context.Context, spec gateway.Spec, progress func(gateway.Progress)) (VM, error) {
	if err := s.allowed(verbNew); err != nil {
		return VM{}, err
	}
	if err := gateway.CheckName(spec.Name); err != nil {
		return VM{}, err
	}
	m, err := s.api.Machines.New(ctx, spec, timed(progress))
	if err != nil {
		return VM{}, err
	}
	return s.shown(ctx, m), nil
}

// Start starts a VM.
func (s Session) Start(ctx context.Context, name string) (VM, error) {
	m, err := s.vm(verbStart, name)
	if err != nil {
		return VM{}, err
	}
	if err := s.api.Machines.Start(ctx, m.ID); err != nil {
		return VM{}, err
	}
	return s.changed(ctx, m.ID)
}

// Stop stops a VM; force ends it without asking the guest.
func (s Session) Stop(ctx context.Context, name string, force bool) (VM, error) {
	m, err := s.vm(verbStop, name)
	if err != nil {
		return VM{}, err
	}
	if err := s.api.Machines.Stop(ctx, m.ID, force); err != nil {
		return VM{}, err
	}
	return s.changed(ctx, m.ID)
}

// Restart stops a VM and starts it.
func (s Session) Restart(ctx context.Context, name string) (VM, error) {
	m, err := s.vm(verbRestart, name)
	if err != nil {
		return VM{}, err
	}
	if err := s.api.Machines.Restart(ctx, m.ID); err != nil {
		return VM{}, err
	}
	return s.changed(ctx, m.ID)
}

// Remove deletes a VM and all that is kept for it.
func (s Session) Remove(ctx context.Context, name string) error {
	m, err := s.vm(verbRemove, name)
	if err != nil {
		return err
	}
	return s.api.Machines.Remove(ctx, m.ID)
}

// Share sets who may open a port of a VM. The URL of the answer is that of the port.
func (s Session) Share(ctx context.Context, name string, share gateway.Share) (VM, error) {
	m, err := s.vm(verbShare, name)
	if err != nil {
		return VM{}, err
	}
	if share.Visibility != gateway.Public && share.Visibility != gateway.Private {
		return VM{}, gateway.Invalid("not a visibility: %q", share.Visibility).WithHint("A port is public or private.")
	}
	m, err = s.api.Directory.Update(ctx, m.ID, func(m *gateway.VM) error {
		m.Shares = m.WithShare(share)
		return nil
	})
	if err != nil {
		return VM{}, err
	}
	answer := s.shown(ctx, m)
	answer.URL = s.api.Web.URL(m, share.Port)
	return answer, nil
}
