package api

import (
	"context"
	"errors"
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
	Buckets    []Share          `json:"buckets"`     // of S3, that are shared
	Domains    []gateway.Domain `json:"domains"`     // custom domains that lead to it
	Created    time.Time        `json:"created"`

	WakeOnRequest  bool            `json:"wake_on_request"`           // a web request starts the stopped VM, if its visitor may open the page
	RollbackInside bool            `json:"rollback_inside"`           // programs in the VM may roll it back to a checkpoint
	CheckpointPlan *CheckpointPlan `json:"checkpoint_plan,omitempty"` // how often checkpoints are made; without it, on request only
}

// show makes the VM that faces show of a record and its status. It is the only place that does.
func (s Session) show(m gateway.VM, status gateway.Status) VM {
	return VM{
		ID: m.ID, Name: m.Name, Status: status, Size: m.Size, Addr: m.Addr, Created: m.Created, WakeOnRequest: m.WakeOnRequest,
		RollbackInside: m.RollbackInside, CheckpointPlan: showPlan(m.CheckpointPlan),
		URL:        s.api.Web.URL(m, gateway.DefaultPort),
		MailDomain: m.Name + "." + s.api.Domain,
		Shares:     s.showShares(m),
		Buckets:    s.showBucketShares(m),
		Domains:    append([]gateway.Domain{}, m.Domains...),
	}
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

// sees reports whether a VM is in the caller's list: one that they may open.
func (s Session) sees(m gateway.VM) bool {
	if s.owns() {
		return true
	}
	_, ok := s.api.People.FirstPort(s.caller.person, m)
	return ok
}

// listed is show for a list. Who may only open pages of the VM sees where they are.
func (s Session) listed(m gateway.VM, status gateway.Status) VM {
	if s.may(verbShow, m) {
		return s.show(m, status)
	}
	port, _ := s.api.People.FirstPort(s.caller.person, m)
	return VM{ID: m.ID, Name: m.Name, Status: gateway.Status{State: status.State}, URL: s.api.Web.URL(m, port), Shares: []Share{}, Buckets: []Share{}, Domains: []gateway.Domain{}}
}

// List returns all VMs that the caller may open, ordered by name.
func (s Session) List(ctx context.Context) ([]VM, error) {
	if err := s.allowed(verbList); err != nil {
		return nil, err
	}
	all := []VM{} // not nil: an empty list is [] in JSON
	statuses := s.api.Observer.Statuses(ctx)
	for _, m := range s.api.Directory.All() {
		if !s.sees(m) {
			continue
		}
		status, ok := statuses[m.ID]
		if !ok { // made a moment ago
			status = gateway.Status{State: "starting"}
		}
		all = append(all, s.listed(m, status))
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

// New makes a VM and starts it. After an error, or when ctx ends, nothing of it is left; nor when the caller may no
// longer make one.
func (s Session) New(ctx context.Context, spec gateway.Spec, progress func(gateway.Progress)) (VM, error) {
	if err := s.allowed(verbNew); err != nil {
		return VM{}, err
	}
	if err := gateway.CheckName(spec.Name); err != nil {
		return VM{}, err
	}
	spec.Grants = nil
	if !s.owns() {
		spec.Grants = []gateway.Grant{{To: s.caller.person, Level: gateway.Manage}}
	}
	ctx, end := s.while(ctx, verbNew, gateway.ID{})
	defer end()
	m, err := s.api.Machines.New(ctx, spec, timed(progress))
	if err != nil {
		return VM{}, orDenied(ctx, err)
	}
	if err := s.allowed(verbNew); err != nil { // it took a while
		return VM{}, errors.Join(err, s.api.Machines.Remove(context.WithoutCancel(ctx), m.ID))
	}
	for _, g := range spec.Grants {
		s.auditGrant(ctx, m, g)
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
