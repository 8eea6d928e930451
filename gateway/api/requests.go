package api

import (
	"context"
	"log/slog"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
)

// AccessRequest is somebody's request to open a port of a VM, as every face shows it.
type AccessRequest struct {
	ID      string    `json:"id"`
	VM      string    `json:"vm"`
	Port    uint16    `json:"port"`    // 0: the one that the VM's own name leads to
	Host    string    `json:"host"`    // the name that was to be opened
	Address string    `json:"address"` // of who asks
	Proven  bool      `json:"proven"`  // they have logged in with the address; else they typed it, and may be anyone
	From    string    `json:"from"`    // IP address
	Asked   time.Time `json:"asked"`
	Until   time.Time `json:"until"`
	URL     string    `json:"url"` // the page at which it is answered, once, by who may manage the VM
}

// Requests lists the requests for access that the caller may answer, the oldest first.
func (s Session) Requests(context.Context) ([]AccessRequest, error) {
	if err := s.allowed(verbRequests); err != nil {
		return nil, err
	}
	return s.requests(func(m gateway.VM) bool { return s.may(verbApprove, m) }), nil
}

// requests lists those for VMs that which returns true for.
func (s Session) requests(which func(gateway.VM) bool) []AccessRequest {
	all := []AccessRequest{} // an empty list is [] in JSON
	for _, q := range s.api.Requests.All() {
		if m, ok := s.api.Directory.ByID(q.VM); ok && m.Desired != gateway.Removed && which(m) {
			all = append(all, s.showRequest(q, m))
		}
	}
	return all
}

func (s Session) showRequest(q gateway.AccessRequest, m gateway.VM) AccessRequest {
	return AccessRequest{
		ID: q.ID, VM: m.Name, Port: q.Port, Host: q.Host, Address: q.Address, Proven: q.Proven(), From: q.From, Asked: q.Asked, Until: q.Until,
		URL: s.api.Web.RequestURL(q.ID),
	}
}

// request finds a request, for a verb that the caller may use on its VM.
func (s Session) request(v verb, id string) (gateway.AccessRequest, gateway.VM, error) {
	q, ok := s.api.Requests.ByID(id)
	m, _ := s.api.Directory.ByID(q.VM)
	if !s.may(v, m) {
		return q, m, errDenied(v)
	}
	if !ok || m.Desired == gateway.Removed || !m.Known() {
		return q, m, gateway.Errorf(gateway.KindNotFound, "there is no request %.100q", id).
			WithHint("It was answered, or has expired. lodge request ls lists those that there are.")
	}
	return q, m, nil
}

// Approve opens exactly the port of a request to exactly who asked, and removes the request. Somebody who
// is not known yet becomes a guest.
func (s Session) Approve(ctx context.Context, id string) (AccessRequest, error) {
	s.api.answering.Lock()
	defer s.api.answering.Unlock()
	q, m, err := s.request(verbApprove, id)
	if err != nil {
		return AccessRequest{}, err
	}
	who := q.Person
	probe := m
	if err := s.admit(&probe, q.Port, who); err != nil { // before anyone is added
		return AccessRequest{}, err
	}
	if !q.Proven() {
		found, err := s.principals(ctx, q.Address)
		if err != nil {
			return AccessRequest{}, err
		}
		who = found[0]
	}
	if _, known := s.api.People.Person(who); !known { // removed a moment ago
		return AccessRequest{}, people.NotFound(q.Address)
	}
	if m, err = s.update(ctx, verbApprove, m.ID, func(m *gateway.VM) error { return s.admit(m, q.Port, who) }); err != nil {
		return AccessRequest{}, err
	}
	s.auditAnswer(ctx, gateway.EventAccessApproved, q, m)
	return s.showRequest(q, m), s.api.Requests.Remove(ctx, func(other gateway.AccessRequest) bool { return other.ID == q.ID })
}

// admit opens a port of a VM to one person more, unless it is open to them. KindConflict: at a limit.
func (s Session) admit(m *gateway.VM, port uint16, who gateway.Principal) error {
	share := m.Share(port)
	if share.Visibility == gateway.Public || s.api.People.MayOpen(who, *m, port) {
		return nil
	}
	share = share.Admitting(who)
	if len(share.With)+len(share.Domains) > gateway.MaxGrants {
		return gateway.Errorf(gateway.KindConflict, "the port is shared with %d people and teams, which is the limit", gateway.MaxGrants).
			WithHint("Share it with a team instead: lodge share %s team NAME", m.Name)
	}
	to := Sharing{Share: Share{Port: port, Visibility: share.Visibility}}
	if err := to.check(*m); err != nil {
		return err
	}
	m.Shares = m.WithShare(share)
	m.ShareRev++
	return nil
}

// Deny ends a request: nobody sees it any more.
func (s Session) Deny(ctx context.Context, id string) error {
	s.api.answering.Lock()
	defer s.api.answering.Unlock()
	q, m, err := s.request(verbDeny, id)
	if err != nil {
		return err
	}
	if err := s.api.Requests.Hide(ctx, func(other gateway.AccessRequest) bool { return other.ID == q.ID }); err != nil {
		return err
	}
	s.auditAnswer(ctx, gateway.EventAccessDenied, q, m)
	return nil
}

func (s Session) auditAnswer(ctx context.Context, event gateway.AuditEvent, q gateway.AccessRequest, m gateway.VM) {
	s.audit(ctx, event, gateway.LogVM(m.Identity), slog.Int("port", int(q.Port)), slog.String("person", q.Address), slog.String("id", q.ID))
}
