package cli

import (
	"context"

	"lodge/gateway/api"
)

type restartCmd struct{ severalNamed }

// Run restarts VMs.
func (c *restartCmd) Run(ctx context.Context, a *app) error {
	return each(c.Names, func(name string) (api.VM, error) { return a.client.Restart(ctx, name) }, a.show)
}
