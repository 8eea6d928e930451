package cli

import (
	"context"
)

type restartCmd struct{ named }

// Run restarts a VM.
func (c *restartCmd) Run(ctx context.Context, a *app) error {
	return a.say(a.client.Restart(ctx, c.Name))
}
