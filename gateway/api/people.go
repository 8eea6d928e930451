package api

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
)

// Person is somebody whom Lodge knows, as every face shows it.
type Person struct {
	Mail  string      `json:"mail"`  // in lower case, its domain in ASCII
	Role  people.Role `json:"role"`  // "owner", "member" or "guest"
	Teams []string    `json:"teams"` // of which they are a member
	Added time.Time   `json:"added"`
}

// Team is a set of people, as every face shows it.
type Team struct {
	Name    string   `json:"name"`
	Members []string `json:"members"` // mail addresses
}

func (s Session) showPerson(p people.Person) Person {
	shown := Person{Mail: p.Mail, Role: p.Role, Teams: []string{}, Added: p.Added} // an empty list is [] in JSON
	for _, t := range s.api.People.Teams() {
		for _, id := range t.Members {
			if id == p.ID {
				shown.Teams = append(shown.Teams, t.Name)
			}
		}
	}
	return shown
}

func (s Session) showTeam(t people.Team) Team {
	shown := Team{Name: t.Name, Members: []string{}}
	for _, id := range t.Members {
		if name := s.api.People.Name(id); name != "" { // else it was removed a moment ago
			shown.Members = append(shown.Members, name)
		}
	}
	return shown
}

// People lists everyone, ordered by address.
func (s Session) People(context.Context) ([]Person, error) {
	if err := s.allowed(verbPeople); err != nil {
		return nil, err
	}
	teams := map[gateway.Principal][]string{}
	for _, t := range s.api.People.Teams() {
		for _, id := range t.Members {
			teams[id] = append(teams[id], t.Name)
		}
	}
	all := []Person{}
	for _, p := range s.api.People.All() {
		all = append(all, Person{Mail: p.Mail, Role: p.Role, Teams: append([]string{}, teams[p.ID]...), Added: p.Added})
	}
	return all, nil
}

// AddPerson adds somebody, or sets the role of who is there. The empty role is guest for who is new.
func (s Session) AddPerson(ctx context.Context, mail, role string) (Person, error) {
	if err := s.allowed(verbAddPerson); err != nil {
		return Person{}, err
	}
	var as people.Role
	if role != "" {
		var err error
		if as, err = people.ParseRole(role); err != nil {
			return Person{}, err
		}
	}
	p, before, err := s.api.People.Add(ctx, mail, as)
	if err != nil {
		return Person{}, err
	}
	event := gateway.EventPersonChanged
	if before == "" {
		event = gateway.EventPersonAdded
	}
	if as != "" && as != before || before == "" {
		s.audit(ctx, event, slog.String("person", p.Mail), slog.String("role", string(p.Role)))
	}
	return s.showPerson(p), nil
}

// RemovePerson removes somebody, with all rights, sessions and tokens: who is added again is another
// person. The owner of the configuration stays (KindConflict).
func (s Session) RemovePerson(ctx context.Context, mail string) error {
	if err := s.allowed(verbRemovePerson); err != nil {
		return err
	}
	by := s.person().Mail // it may be themselves
	p, err := s.api.People.Remove(ctx, mail)
	if err != nil {
		return err
	}
	gateway.Audit(ctx, s.api.Logger, gateway.EventPersonRemoved, slog.String("person", p.Mail), slog.String("by", by))
	return nil
}

// PersonLink is a link that logs somebody in, once, or where it was sent.
type PersonLink struct {
	URL    string `json:"url,omitempty"`
	SentTo string `json:"sent_to,omitempty"`
}

// PersonLink makes a link that logs somebody in, once: to a VM, or for the empty name to the first one that they may
// open. Somebody with an address of a domain that the VM is shared with becomes a guest. With byMail the link goes to
// their address, and is not returned, unless this host sends no mail there.
func (s Session) PersonLink(ctx context.Context, mail, name string, byMail bool) (PersonLink, error) {
	if err := s.allowed(verbPersonLink); err != nil {
		return PersonLink{}, err
	}
	m, p, err := s.linkFor(ctx, mail, name)
	if err != nil {
		return PersonLink{}, err
	}
	url, err := s.loginLink(ctx, m, p)
	if err != nil || !byMail {
		return PersonLink{URL: url}, err
	}
	err = s.api.Notices.Notify(ctx, gateway.Notice{
		Kind: gateway.NoticeLogin, VM: m.ID, To: p.Mail, Subject: "Your login at " + s.api.Domain,
		Text: "This link logs you in to " + m.Name + "." + s.api.Domain + ", once, within 15 minutes:\n\n" + url +
			"\n\nWhoever has it can use it in your name: do not pass it on. If you do not expect it, do nothing.\n",
	})
	switch {
	case gateway.KindOf(err) == gateway.KindConflict:
		return PersonLink{URL: url}, nil
	case err != nil:
		return PersonLink{}, err
	}
	return PersonLink{SentTo: p.Mail}, nil
}

// linkFor returns the VM that a link of somebody leads to.
func (s Session) linkFor(ctx context.Context, mail, name string) (gateway.VM, people.Person, error) {
	vms := s.api.Directory.All()
	if name != "" {
		m, ok := s.api.Directory.ByName(name)
		if !ok {
			return gateway.VM{}, people.Person{}, gateway.NotFound(name)
		}
		vms = []gateway.VM{m}
	}
	p, err := s.admitted(ctx, mail, vms)
	if err != nil {
		return gateway.VM{}, people.Person{}, err
	}
	if name != "" {
		return vms[0], p, nil
	}
	for _, m := range vms {
		if _, ok := s.api.People.FirstPort(p.ID, m); ok && m.Desired != gateway.Removed {
			return m, p, nil
		}
	}
	return gateway.VM{}, people.Person{}, gateway.Errorf(gateway.KindConflict, "%s may open no VM yet", p.Mail).
		WithHint("Let them in first: lodge grant VM %s view, or lodge share VM people %s", p.Mail, p.Mail)
}

func (s Session) loginLink(ctx context.Context, m gateway.VM, p people.Person) (string, error) {
	url, err := s.api.Web.LoginURL(ctx, m.ID, p.ID)
	if err == nil {
		s.audit(ctx, gateway.EventLoginMade, gateway.LogVM(m.Identity), slog.String("person", p.Mail))
	}
	return url, err
}

// admitted finds somebody. Who is not known, but has an address of a domain that a port of one of vms is
// shared with, becomes a guest.
func (s Session) admitted(ctx context.Context, mail string, vms []gateway.VM) (people.Person, error) {
	p, err := s.personOf(mail)
	if gateway.KindOf(err) != gateway.KindNotFound {
		return p, err
	}
	mail, _ = people.ParseAddress(mail) // personOf has
	_, domain, _ := strings.Cut(mail, "@")
	if !slices.ContainsFunc(vms, func(m gateway.VM) bool { return m.Desired != gateway.Removed && m.SharedWithDomain(domain) }) {
		return people.Person{}, err
	}
	return s.addGuest(ctx, mail)
}

// Teams lists the teams, ordered by name.
func (s Session) Teams(context.Context) ([]Team, error) {
	if err := s.allowed(verbTeams); err != nil {
		return nil, err
	}
	all := []Team{}
	for _, t := range s.api.People.Teams() {
		all = append(all, s.showTeam(t))
	}
	return all, nil
}

// ChangeTeam adds people to a team and removes others. It makes a team that does not exist, and guests of
// those to add who are not known.
func (s Session) ChangeTeam(ctx context.Context, name string, add, remove []string) (Team, error) {
	if err := s.allowed(verbChangeTeam); err != nil {
		return Team{}, err
	}
	if err := people.CheckTeamName(name); err != nil { // before anyone is added
		return Team{}, err
	}
	if _, ok := s.api.People.TeamNamed(name); !ok && len(remove) > 0 {
		return Team{}, people.NotFound(name)
	}
	for _, mail := range slices.Concat(add, remove) { // a team has no teams
		if _, err := people.ParseAddress(mail); err != nil {
			return Team{}, err
		}
	}
	removed, err := s.knownPrincipals(ctx, remove...)
	if err != nil {
		return Team{}, err
	}
	added, err := s.principals(ctx, add...)
	if err != nil {
		return Team{}, err
	}
	t, err := s.api.People.ChangeTeam(ctx, name, added, removed)
	if err != nil {
		return Team{}, err
	}
	s.audit(ctx, gateway.EventTeamChanged, slog.String("team", name), slog.String("added", s.names(added)), slog.String("removed", s.names(removed)))
	return s.showTeam(t), nil
}

// names are those of people, as they are kept.
func (s Session) names(ids []gateway.Principal) string {
	var all []string
	for _, id := range ids {
		all = append(all, s.api.People.Name(id))
	}
	return strings.Join(all, ",")
}

// RemoveTeam removes a team; its members stay, without what only the team gave them.
func (s Session) RemoveTeam(ctx context.Context, name string) error {
	if err := s.allowed(verbRemoveTeam); err != nil {
		return err
	}
	if _, err := s.api.People.RemoveTeam(ctx, name); err != nil {
		return err
	}
	s.audit(ctx, gateway.EventTeamRemoved, slog.String("team", name))
	return nil
}
