package cli

import (
	"context"
	"io"
	"strings"

	"lodge/gateway/api"
)

type mailAddressCmd struct {
	New mailAddressNewCmd `cmd:"" default:"withargs" help:"Print a new address of a VM, which only some may write to, for a time."`
	Ls  mailAddressLsCmd  `cmd:"" help:"List these addresses of a VM."`
	Rm  mailAddressRmCmd  `cmd:"" help:"Remove such an address."`
}

type mailAddressNewCmd struct {
	named

	From    []string `help:"Who may write to it: addresses and @domains." placeholder:"SENDER" required:""`
	Expires string   `default:"30d" help:"How long it is valid, such as 12h or 30d; at most 366d." placeholder:"TIME"`
	Label   string   `help:"What it is for." placeholder:"TEXT"`
}

// Help is the text below the usage.
func (*mailAddressNewCmd) Help() string {
	return "Give it to a shop or a service in place of an address that anybody may write to. It accepts the senders of --from alone, whatever lodge mail set --allow has. " +
		"It cannot be guessed, and once it has expired or is removed, its mail is refused for good."
}

// Run makes an address.
func (c *mailAddressNewCmd) Run(ctx context.Context, a *app) error {
	life, err := parseLife(c.Expires)
	if err != nil {
		return err
	}
	made, err := a.client.NewMailAddress(ctx, c.Name, api.MailAddressSpec{From: c.From, Label: c.Label, Life: life})
	if err != nil {
		return err
	}
	return a.print(made, func(w io.Writer) { row(w, made.Address) })
}

type mailAddressLsCmd struct{ named }

// Run lists addresses.
func (c *mailAddressLsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.MailAddresses(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No such addresses. Make one: lodge mail address "+c.Name+" --from @shop.example")
			return
		}
		row(w, "ADDRESS", "FROM", "EXPIRES", "LABEL")
		for _, m := range all {
			row(w, m.Address, strings.Join(m.From, ", "), day(m.Expires), m.Label)
		}
	})
}

type mailAddressRmCmd struct {
	named

	Address string `arg:"" help:"The address, as lodge mail address ls shows it."`
}

// Run removes an address.
func (c *mailAddressRmCmd) Run(ctx context.Context, a *app) error {
	return a.removed(c.Address, a.client.RemoveMailAddress(ctx, c.Name, c.Address))
}
