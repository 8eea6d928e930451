package cli

import (
	"context"

	"lodge/gateway/api"
)

type startCmd struct{ severalNamed }

// Run starts VMs.
func (c *startCmd) Run(ctx context.Context, a *app) error {
	return each(c.Names, func(name string) (api.VM, error) { return a.client.Start(ctx, name) }, a.show)
}
