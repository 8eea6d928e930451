package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"lodge/gateway"
	"lodge/gateway/api"
)

type personCmd struct {
	Add  personAddCmd  `cmd:"" help:"Add somebody, or set their role."`
	Rm   personRmCmd   `cmd:"" help:"Remove somebody, with all that they may do and have open."`
	Ls   personLsCmd   `cmd:"" help:"List everyone."`
	Link personLinkCmd `cmd:"" help:"Print a link that logs somebody in, once, within 15 minutes, or send it to them."`
}

// address is the person of a verb.
type address struct {
	Mail string `arg:"" help:"Their mail address." name:"address" predictor:"person"`
}

type personAddCmd struct {
	address

	Role string `help:"owner (may do everything), member (may also make VMs) or guest (what they are granted, and what is shared with them). Without it, guest for who is new." placeholder:"ROLE"`
}

// Help is the text below the usage.
func (*personAddCmd) Help() string {
	return "lodge share, lodge grant and lodge team add somebody who is not known yet by themselves, as a guest."
}

// Run adds somebody.
func (c *personAddCmd) Run(ctx context.Context, a *app) error {
	p, err := a.client.AddPerson(ctx, c.Mail, c.Role)
	if err != nil {
		return err
	}
	return a.print(p, func(w io.Writer) { row(w, fmt.Sprintf("%s is %s.", p.Mail, withArticle(string(p.Role)))) })
}

func withArticle(role string) string {
	if strings.HasPrefix(role, "o") {
		return "an " + role
	}
	return "a " + role
}

type personRmCmd struct{ address }

// Help is the text below the usage.
func (*personRmCmd) Help() string {
	return "Sessions and tokens end at once, and so do streams that are open. Who is added again later has nothing of this back."
}

// Run removes somebody.
func (c *personRmCmd) Run(ctx context.Context, a *app) error {
	if err := a.client.RemovePerson(ctx, c.Mail); err != nil {
		return err
	}
	return a.print(map[string]string{"removed": c.Mail}, func(w io.Writer) { row(w, c.Mail+" is removed.") })
}

type personLsCmd struct{}

// Run lists everyone.
func (*personLsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.People(ctx)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		row(w, "ADDRESS", "ROLE", "TEAMS", "ADDED")
		for _, p := range all {
			row(w, p.Mail, p.Role, strings.Join(p.Teams, ", "), p.Added.Local().Format("2006-01-02"))
		}
	})
}

type personLinkCmd struct {
	address

	VM     string `arg:"" help:"The VM to which it leads; without it, the first one that they may open." name:"vm" optional:"" predictor:"vm"`
	ByMail bool   `help:"Send the link to their address, and do not print it. A host that sends no mail there prints it." name:"mail"`
}

// Run prints or sends a login link.
func (c *personLinkCmd) Run(ctx context.Context, a *app) error {
	link, err := a.client.PersonLink(ctx, c.Mail, c.VM, c.ByMail)
	if err != nil {
		return err
	}
	return a.print(link, func(w io.Writer) {
		if link.SentTo != "" {
			row(w, "Sent to "+link.SentTo+".")
			return
		}
		row(w, link.URL)
	})
}

type teamCmd struct {
	Add teamAddCmd `cmd:"" help:"Make a team, or add people to one."`
	Rm  teamRmCmd  `cmd:"" help:"Remove people from a team, or the team itself."`
	Ls  teamLsCmd  `cmd:"" help:"List the teams and their members."`
}

type teamAddCmd struct {
	Name    string   `arg:"" help:"The name of the team." name:"team" predictor:"team"`
	Members []string `arg:"" help:"Mail addresses." name:"address" optional:"" predictor:"person"`
}

// Run adds people to a team.
func (c *teamAddCmd) Run(ctx context.Context, a *app) error {
	return a.changedTeam(a.client.ChangeTeam(ctx, c.Name, c.Members, nil))
}

func (a *app) changedTeam(t api.Team, err error) error {
	if err != nil {
		return err
	}
	return a.print(t, func(w io.Writer) { row(w, fmt.Sprintf("%s has %s.", t.Name, members(t))) })
}

func members(t api.Team) string {
	if len(t.Members) == 0 {
		return "no members"
	}
	return strings.Join(t.Members, ", ")
}

type teamRmCmd struct {
	Name    string   `arg:"" help:"The name of the team." name:"team" predictor:"team"`
	Members []string `arg:"" help:"Mail addresses; without any, the team itself is removed." name:"address" optional:"" predictor:"person"`
}

// Run removes people from a team, or the team.
func (c *teamRmCmd) Run(ctx context.Context, a *app) error {
	if len(c.Members) > 0 {
		return a.changedTeam(a.client.ChangeTeam(ctx, c.Name, nil, c.Members))
	}
	if err := a.client.RemoveTeam(ctx, c.Name); err != nil {
		return err
	}
	return a.print(map[string]string{"removed": c.Name}, func(w io.Writer) { row(w, c.Name+" is removed.") })
}

type teamLsCmd struct{}

// Run lists the teams.
func (*teamLsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.Teams(ctx)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No teams. Make one: lodge team add devs ada@example.com")
			return
		}
		row(w, "TEAM", "MEMBERS")
		for _, t := range all {
			row(w, t.Name, members(t))
		}
	})
}

type grantCmd struct {
	named

	Who   string `arg:"" help:"A mail address, or the name of a team." predictor:"person"`
	Level string `arg:"" help:"view (its pages), use (also its shell, mail and files), manage (everything) or none."`
}

// Run sets what somebody may do with a VM.
func (c *grantCmd) Run(ctx context.Context, a *app) error {
	level, err := gateway.ParseLevel(c.Level)
	if err != nil {
		return err
	}
	all, err := a.client.Grant(ctx, c.Name, api.Grant{Who: c.Who, Level: level})
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "Nobody but the owner has a grant on "+c.Name+".")
		}
		for _, g := range all {
			row(w, fmt.Sprintf("%s may %s %s.", g.Who, g.Level, c.Name))
		}
	})
}
