package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
)

type tokenCmd struct {
	New tokenNewCmd `cmd:"" help:"Print a new token: it is shown once."`
	Ls  tokenLsCmd  `cmd:"" help:"List the tokens of a VM."`
	Rm  tokenRmCmd  `cmd:"" help:"Remove a token, and end what is open by it."`
}

type tokenNewCmd struct {
	named

	Port    uint16 `help:"The port that it opens; without it, all of them and the VM's page." placeholder:"N"`
	Expires string `default:"30d" help:"How long it is valid, such as 12h or 30d; at most 366d." placeholder:"TIME"`
	Label   string `help:"What it is for." placeholder:"TEXT"`
}

// Help is the text below the usage.
func (*tokenNewCmd) Help() string {
	return "A script sends it as \"Authorization: Bearer TOKEN\", or as the password of HTTP basic authentication: curl -u x:TOKEN. " +
		"It opens what you may open, at this VM alone. The app does not see it, only its ID in X-Lodge-Token."
}

// Run makes a token.
func (c *tokenNewCmd) Run(ctx context.Context, a *app) error {
	life, err := parseLife(c.Expires)
	if err != nil {
		return err
	}
	in := control.TokenRequest{Label: c.Label, LifeSeconds: int64(life / time.Second)}
	if c.Port != 0 {
		in.Port = &c.Port
	}
	made, err := a.client.NewToken(ctx, c.Name, in)
	if err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) { row(w, made.Token) })
}

type tokenLsCmd struct{ named }

// Run lists tokens.
func (c *tokenLsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.Tokens(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No tokens. Make one: lodge token new "+c.Name+" --port 8000")
			return
		}
		row(w, "ID", "OPENS", "EXPIRES", "BY", "LABEL")
		for _, p := range all {
			row(w, p.ID, opens(p), day(p.Expires), p.By, p.Label)
		}
	})
}

// opens names what a link or a token opens.
func opens(p api.Pass) string {
	switch {
	case p.AllPorts:
		return "all ports"
	case p.Bucket != "":
		return "s3:" + p.Bucket
	}
	return portName(p.Port)
}

func day(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// passID is one link or token of a VM.
type passID struct {
	named

	ID string `arg:"" help:"The ID, as lodge share VM shows it." name:"id"`
}

type tokenRmCmd struct{ passID }

// Run removes a token.
func (c *tokenRmCmd) Run(ctx context.Context, a *app) error {
	return a.removed(c.ID, a.client.RemoveToken(ctx, c.Name, c.ID))
}

func (a *app) removed(id string, err error) error {
	if err != nil {
		return err
	}
	return a.print(map[string]string{"removed": id}, func(w io.Writer) { row(w, id+" is removed.") })
}

type linkCmd struct {
	Ls linkLsCmd `cmd:"" help:"List the links to ports of a VM."`
	Rm linkRmCmd `cmd:"" help:"Remove a link, and end what is open by it."`
}

type linkLsCmd struct{ named }

// Run lists links.
func (c *linkLsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.Links(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No links. Make one: lodge share "+c.Name+" --port 8000 link")
			return
		}
		row(w, "ID", "OPENS", "USED", "EXPIRES", "BY")
		for _, p := range all {
			row(w, p.ID, opens(p), fmt.Sprintf("%d of %d", p.Uses, p.MaxUses), day(p.Expires), p.By)
		}
	})
}

type linkRmCmd struct{ passID }

// Run removes a link.
func (c *linkRmCmd) Run(ctx context.Context, a *app) error {
	return a.removed(c.ID, a.client.RemoveLink(ctx, c.Name, c.ID))
}

// parseTime reads a time such as 90m, 12h or 30d.
func parseTime(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)     // fits a Duration
		return time.Duration(n) * 24 * time.Hour, err //nolint:gosec // 16 bits
	}
	return time.ParseDuration(text)
}

// parseLife reads how long a link, a token or an address is valid.
func parseLife(text string) (time.Duration, error) {
	life, err := parseTime(text)
	if err != nil || life < time.Minute || life > gateway.MaxPassLife {
		return 0, gateway.Invalid("not a time: %.100q", text).WithHint("It is at least 1m and at most 366d: 90m, 12h and 30d are times.")
	}
	return life, nil
}
