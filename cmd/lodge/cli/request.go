package cli

import (
	"context"
	"fmt"
	"io"

	"lodge/gateway/api"
)

type requestCmd struct {
	Ls      requestLsCmd      `cmd:"" help:"List the requests that nobody has answered."`
	Approve requestApproveCmd `cmd:"" help:"Open the port of a request to who asked."`
	Deny    requestDenyCmd    `cmd:"" help:"Remove a request."`
}

type requestLsCmd struct{}

// Help is the text below the usage.
func (*requestLsCmd) Help() string {
	return "People ask at the page for what they may not see. \"unproven\" is an address that somebody typed without a login: " +
		"whoever logs in with it later has it. Each request has a page, where it is answered too."
}

// Run lists requests.
func (*requestLsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.Requests(ctx)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No requests.")
			return
		}
		row(w, "ID", "WHO", "ASKS FOR", "SINCE", "ANSWER AT")
		for _, q := range all {
			row(w, q.ID, asks(q), q.Host, day(q.Asked), q.URL)
		}
	})
}

// asks names who asks.
func asks(q api.AccessRequest) string {
	if q.Proven {
		return q.Address
	}
	return fmt.Sprintf("%s (unproven, from %s)", q.Address, q.From)
}

// requestID is one request.
type requestID struct {
	ID string `arg:"" help:"The ID, as lodge request ls shows it." name:"id"`
}

type requestApproveCmd struct{ requestID }

// Help is the text below the usage.
func (*requestApproveCmd) Help() string {
	return "It opens exactly that port, to exactly that person; somebody new becomes a guest. " +
		"To take it back: lodge share VM --port N private"
}

// Run approves a request.
func (c *requestApproveCmd) Run(ctx context.Context, a *app) error {
	q, err := a.client.Approve(ctx, c.ID)
	if err != nil {
		return err
	}
	return a.print(q, func(w io.Writer) {
		row(w, fmt.Sprintf("%s may open %s of %s.", q.Address, portName(q.Port), q.VM))
		if !q.Proven {
			row(w, fmt.Sprintf("To log them in: lodge person link %s %s", q.Address, q.VM))
		}
	})
}

type requestDenyCmd struct{ requestID }

// Run denies a request.
func (c *requestDenyCmd) Run(ctx context.Context, a *app) error {
	return a.removed(c.ID, a.client.Deny(ctx, c.ID))
}
