package cli

import (
	"context"

	"lodge/gateway/api"
)

type stopCmd struct {
	severalNamed

	Force bool `help:"Power off without a shutdown of the guest." short:"f"`
}

// Run stops VMs.
func (c *stopCmd) Run(ctx context.Context, a *app) error {
	return each(c.Names, func(name string) (api.VM, error) { return a.client.Stop(ctx, name, c.Force) }, a.show)
}
