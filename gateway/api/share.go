package api

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"lodge/gateway"
	"lodge/gateway/people"
)

// Share is the visibility of a port as every face shows it.
type Share struct {
	Port       uint16             `json:"port"`           // 0: the one that the VM's own name leads to
	Visibility gateway.Visibility `json:"visibility"`     // "private", "people", "team", "link" or "public"
	With       []string           `json:"with,omitempty"` // the mail addresses and @domains, or the teams; of each, who was let in by a request
}

func (s Session) showShares(m gateway.VM) []Share {
	shares := []Share{} // an empty list is [] in JSON
	for _, share := range m.Shares {
		shown := s.showShare(share)
		if s.caller.vm != (gateway.ID{}) {
			shown.With = nil // its programs need nobody's address
		}
		shares = append(shares, shown)
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

// Sharing is the request to set who may open a port.
type Sharing struct {
	Share

	Rev uint64 // the Access.Rev that the caller has read: if it has changed since, KindConflict; 0: whatever it is
}

// Share sets who may open a port of a VM. People who are not known yet become guests. The URL of the
// answer is that of the port.
func (s Session) Share(ctx context.Context, name string, to Sharing) (VM, error) {
	m, err := s.vm(verbShare, name)
	if err != nil {
		return VM{}, err
	}
	if err := to.check(m); err != nil { // before anyone is added
		return VM{}, err
	}
	share, err := s.parseShare(ctx, to.Share)
	if err != nil {
		return VM{}, err
	}
	if share.Visibility == gateway.Link && m.Visibility(share.Port) != gateway.Link { // what a crash has left of its last links
		if err := s.removeLinks(ctx, m, share.Port); err != nil {
			return VM{}, err
		}
	}
	var before gateway.Visibility
	m, err = s.update(ctx, verbShare, m.ID, func(m *gateway.VM) error {
		if err := to.check(*m); err != nil {
			return err
		}
		before = m.Visibility(share.Port)
		m.Shares = m.WithShare(share)
		m.ShareRev++
		return nil
	})
	if err != nil {
		return VM{}, err
	}
	if before == gateway.Link && share.Visibility != gateway.Link {
		if err := s.removeLinks(ctx, m, share.Port); err != nil {
			return VM{}, err
		}
	}
	s.audit(ctx, gateway.EventShared, gateway.LogVM(m.Identity), slog.Int("port", int(share.Port)), slog.String("visibility", string(share.Visibility)),
		slog.String("with", strings.Join(s.showShare(share).With, ",")))
	answer := s.shown(ctx, m)
	answer.URL = s.api.Web.URL(m, share.Port)
	return answer, nil
}

// check fails with KindConflict if who may open a VM has changed since the revision, and at the limit.
func (to Sharing) check(m gateway.VM) error {
	if to.Rev != 0 && to.Rev != m.ShareRev+1 {
		return gateway.Errorf(gateway.KindConflict, "who may open %s was changed meanwhile", m.Name).WithHint("Look again: lodge share %s", m.Name)
	}
	if len(m.WithShare(gateway.Share{Port: to.Port, Visibility: to.Visibility})) > gateway.MaxShares {
		return gateway.Errorf(gateway.KindConflict, "%s has %d shared ports, which is the limit", m.Name, gateway.MaxShares).
			WithHint("Make one private: lodge share %s --port N private", m.Name)
	}
	return nil
}

// parseShare turns addresses and names into what a record has.
func (s Session) parseShare(ctx context.Context, to Share) (gateway.Share, error) {
	share := gateway.Share{Port: to.Port, Visibility: to.Visibility}
	switch to.Visibility {
	case gateway.Private, gateway.Public, gateway.Link:
		if len(to.With) > 0 {
			return share, gateway.Invalid("a %s port is shared with nobody in particular", to.Visibility).WithHint("To name people: lodge share VM people ada@example.com,@example.org")
		}
		return share, nil
	case gateway.People, gateway.Team:
	default:
		return share, gateway.Invalid("not a visibility: %.100q", to.Visibility).WithHint("A port is private, public, or open to people, to a team or by link.")
	}
	if len(to.With) == 0 || len(to.With) > gateway.MaxGrants {
		return share, gateway.Invalid("shared with %d people or teams; 1 to %d are possible", len(to.With), gateway.MaxGrants).
			WithHint("Examples: lodge share blog people ada@example.com,@example.org; lodge share blog team devs")
	}
	var names []string
	for _, text := range to.With {
		if domain, ok := strings.CutPrefix(text, "@"); ok && to.Visibility == gateway.People {
			domain, err := people.ParseMailDomain(domain)
			if err != nil {
				return share, err
			}
			share.Domains = append(share.Domains, domain)
			continue
		}
		if strings.Contains(text, "@") != (to.Visibility == gateway.People) {
			return share, gateway.Invalid("%.100q is no %s", text, map[gateway.Visibility]string{gateway.People: "mail address", gateway.Team: "team"}[to.Visibility]).
				WithHint("people takes addresses and @domains, team the names of teams.")
		}
		names = append(names, text)
	}
	var err error
	if share.With, err = s.principals(ctx, names...); err != nil {
		return share, err
	}
	slices.Sort(share.With)
	slices.Sort(share.Domains)
	share.With, share.Domains = slices.Compact(share.With), slices.Compact(share.Domains)
	return share, nil
}

// Grant is the level of a person or a team on a VM.
type Grant struct {
	Who   string        `json:"who"`   // a mail address, or the name of a team
	Level gateway.Level `json:"level"` // "view", "use" or "manage"
}

// Grant sets what a person or a team may do with a VM; gateway.NoLevel is nothing. Somebody who is not
// known yet becomes a guest.
func (s Session) Grant(ctx context.Context, name string, to Grant) ([]Grant, error) {
	m, err := s.vm(verbGrant, name)
	if err != nil {
		return nil, err
	}
	if to.Level != gateway.NoLevel { // it may be "none"
		if to.Level, err = gateway.ParseLevel(string(to.Level)); err != nil {
			return nil, err
		}
	}
	find := s.principals
	if to.Level == gateway.NoLevel {
		find = s.knownPrincipals
	}
	ids, err := find(ctx, to.Who)
	if err != nil {
		return nil, err
	}
	if m, err = s.setGrant(ctx, m, ids[0], to.Level); err != nil {
		return nil, err
	}
	return s.grants(m), nil
}

func (s Session) setGrant(ctx context.Context, m gateway.VM, to gateway.Principal, level gateway.Level) (gateway.VM, error) {
	m, err := s.update(ctx, verbGrant, m.ID, func(m *gateway.VM) error {
		m.Grants = m.WithGrant(to, level)
		m.ShareRev++
		if len(m.Grants) > gateway.MaxGrants {
			m.Grants = slices.DeleteFunc(m.Grants, func(g gateway.Grant) bool { return s.api.People.Name(g.To) == "" }) // removed ones
		}
		if len(m.Grants) > gateway.MaxGrants {
			return gateway.Errorf(gateway.KindConflict, "%s has %d grants, which is the limit", m.Name, gateway.MaxGrants).WithHint("Grant it to a team: lodge team add NAME ADDRESS")
		}
		return nil
	})
	if err == nil {
		s.auditGrant(ctx, m, gateway.Grant{To: to, Level: level})
	}
	return m, err
}

func (s Session) auditGrant(ctx context.Context, m gateway.VM, g gateway.Grant) {
	s.audit(ctx, gateway.EventGranted, gateway.LogVM(m.Identity), slog.String("to", s.api.People.Name(g.To)), slog.String("level", string(g.Level)))
}

func (s Session) grants(m gateway.VM) []Grant {
	all := []Grant{} // an empty list is [] in JSON
	for _, g := range m.Grants {
		if name := s.api.People.Name(g.To); name != "" { // else it is removed
			all = append(all, Grant{name, g.Level})
		}
	}
	return all
}

// principals finds people by address and teams by name. Those who are not known become guests, once all names are good.
func (s Session) principals(ctx context.Context, names ...string) ([]gateway.Principal, error) {
	var ids []gateway.Principal
	var guests []string
	for _, name := range names {
		id, err := s.knownPrincipal(name)
		switch {
		case gateway.KindOf(err) == gateway.KindNotFound && strings.Contains(name, "@"):
			guests = append(guests, name)
		case err != nil:
			return nil, err
		default:
			ids = append(ids, id)
		}
	}
	if len(guests) > 0 && !s.owns() && s.api.People.Len()+len(guests) > people.MaxGuests {
		return nil, gateway.Errorf(gateway.KindConflict, "there are %d people; only an owner may add more", s.api.People.Len()).
			WithHint("Ask the owner of this host, or share with @example.com, which adds those alone who come.")
	}
	for _, mail := range guests {
		p, err := s.addGuest(ctx, mail)
		if err != nil {
			return nil, err
		}
		ids = append(ids, p.ID)
	}
	return ids, nil
}

func (s Session) addGuest(ctx context.Context, mail string) (people.Person, error) {
	p, before, err := s.api.People.Add(ctx, mail, "")
	if err == nil && before == "" {
		s.audit(ctx, gateway.EventPersonAdded, slog.String("person", p.Mail), slog.String("role", string(p.Role)))
	}
	return p, err
}

// knownPrincipals is principals without guests.
func (s Session) knownPrincipals(_ context.Context, names ...string) ([]gateway.Principal, error) {
	ids := make([]gateway.Principal, len(names))
	for i, name := range names {
		var err error
		if ids[i], err = s.knownPrincipal(name); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func (s Session) knownPrincipal(who string) (gateway.Principal, error) {
	if !strings.Contains(who, "@") {
		t, ok := s.api.People.TeamNamed(who)
		if !ok {
			return 0, people.NotFound(who)
		}
		return t.ID, nil
	}
	p, err := s.personOf(who)
	return p.ID, err
}

func (s Session) personOf(address string) (people.Person, error) {
	mail, err := people.ParseAddress(address)
	if err != nil {
		return people.Person{}, err
	}
	p, ok := s.api.People.ByMail(mail)
	if !ok {
		return people.Person{}, people.NotFound(mail)
	}
	return p, nil
}

// Access is all that opens a VM.
type Access struct {
	VM       string       `json:"vm"`
	Rev      uint64       `json:"rev"` // of ports and grants, for a change that must not undo another one
	Ports    []PortAccess `json:"ports"`
	Grants   []Grant      `json:"grants"`   // may open all ports
	Links    []Pass       `json:"links"`    // each opens one port that is shared by link
	Tokens   []Pass       `json:"tokens"`   // for scripts
	Forwards []Forward    `json:"forwards"` // whoever reaches the host's port reaches the VM

	Requests []AccessRequest `json:"requests"` // for ports that are not open to who asks
}

// PortAccess is who may open a port of a VM.
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

// openPorts returns those public ports of a VM, but for the one of its name, where something listens.
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
	a := PortAccess{Share: s.showShare(m.Share(port)), URL: s.api.Web.URL(m, port), Domains: []string{}, Bypass: []string{}}
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
