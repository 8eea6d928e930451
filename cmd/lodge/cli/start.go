package cli

import (
	"context"
)

type startCmd struct{ named }

// Run starts a VM.
func (c *startCmd) Run(ctx context.Context, a *app) error { return a.say(a.client.Start(ctx, c.Name)) }
