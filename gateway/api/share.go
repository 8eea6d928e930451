package api

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"lodge/gateway"
	"lodge/gateway/people"
)

// Share is the visibility of a port as every face shows it.
type Share struct {
	Port       uint16             `json:"port"`             // 0: the one that the VM's own name leads to
	Bucket     string             `json:"bucket,omitempty"` // of S3, in place of the port
	Visibility gateway.Visibility `json:"visibility"`       // "private", "people", "team", "link" or "public"
	With       []string           `json:"with,omitempty"`   // the mail addresses and @domains, or the teams; of each, who was let in by a request
}

func (s Session) showShares(m gateway.VM) []Share {
	shares := []Share{} // an empty list is [] in JSON
	for _, share := range m.Shares {
		shares = append(shares, s.showShare("", share))
	}
	return shares
}

func (s Session) showBucketShares(m gateway.VM) []Share {
	shares := []Share{} // as above
	for _, share := range m.S3.Shares {
		shares = append(shares, s.showShare(share.Bucket, share.Share))
	}
	return shares
}

func (s Session) showShare(bucket string, share gateway.Share) Share {
	shown := Share{Port: share.Port, Bucket: bucket, Visibility: share.Visibility}
	if s.caller.vm != (gateway.ID{}) {
		return shown // a VM's programs need nobody's address
	}
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

// Share sets who may open a port of a VM, or list and read a bucket. People who are not known yet
// become guests. The URL of the answer is that of the port or the bucket.
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
	if share.Visibility == gateway.Link && m.ShareOf(to.Bucket, to.Port).Visibility != gateway.Link { // what a crash has left of its last links
		if err := s.removeLinks(ctx, m, to.Share); err != nil {
			return VM{}, err
		}
	}
	var before gateway.Visibility
	m, err = s.update(ctx, verbShare, m.ID, func(m *gateway.VM) error {
		if err := to.check(*m); err != nil {
			return err
		}
		before = m.ShareOf(to.Bucket, to.Port).Visibility
		*m = m.Reshare(to.Bucket, share)
		return nil
	})
	if err != nil {
		return VM{}, err
	}
	if before == gateway.Link && share.Visibility != gateway.Link {
		if err := s.removeLinks(ctx, m, to.Share); err != nil {
			return VM{}, err
		}
	}
	s.audit(ctx, gateway.EventShared, gateway.LogVM(m.Identity), to.logged(), slog.String("visibility", string(share.Visibility)),
		slog.String("with", strings.Join(s.showShare(to.Bucket, share).With, ",")))
	answer := s.shown(ctx, m)
	answer.URL = s.urlOf(m, to.Bucket, to.Port)
	return answer, nil
}

// check fails with KindConflict if who may open a VM has changed since the revision, and at the limit.
func (to Sharing) check(m gateway.VM) error {
	if to.Rev != 0 && to.Rev != m.ShareRev+1 {
		return gateway.Errorf(gateway.KindConflict, "who may open %s was changed meanwhile", m.Name).WithHint("Look again: lodge share %s", m.Name)
	}
	next := m.Reshare(to.Bucket, gateway.Share{Port: to.Port, Visibility: to.Visibility})
	switch {
	case to.Bucket != "" && to.Port != 0:
		return gateway.Invalid("a share is of a port or of a bucket")
	case to.Bucket != "":
		if err := checkBucketName(to.Bucket); err != nil {
			return err
		}
	}
	if len(next.Shares) > gateway.MaxShares || len(next.S3.Shares) > gateway.MaxShares {
		return gateway.Errorf(gateway.KindConflict, "%s has %d shared ports or buckets, which is the limit", m.Name, gateway.MaxShares).
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
