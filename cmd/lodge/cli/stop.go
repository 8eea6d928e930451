package cli

import (
	"context"
)

type stopCmd struct {
	named

	Force bool `help:"Pull the plug instead of asking the guest."`
}

// Run stops a VM.
func (c *stopCmd) Run(ctx context.Context, a *app) error {
	return a.say(a.client.Stop(ctx, c.Name, c.Force))
}
