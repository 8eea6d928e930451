package cli

import (
	"context"

	"lodge/gateway/api"
)

type waitCmd struct {
	named

	For api.Milestone `default:"userspace" enum:"userspace,service" help:"userspace: one can log in; service: something answers at its URL."`
}

// Run waits for a VM.
func (c *waitCmd) Run(ctx context.Context, a *app) error {
	p := a.progress()
	defer p.end()
	info, err := a.client.Wait(ctx, c.Name, c.For, p.show)
	p.end()
	return a.say(info, err)
}
