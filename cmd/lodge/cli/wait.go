package cli

import (
	"context"

	"lodge/gateway/api"
)

type waitCmd struct {
	named

	For api.Condition `default:"ssh" enum:"ssh,http" help:"ssh: sshd answers; http: something answers at the VM's URL."`
}

// Run waits for a VM.
func (c *waitCmd) Run(ctx context.Context, a *app) error {
	p := a.progress()
	defer p.end()
	info, err := a.client.Wait(ctx, c.Name, c.For, p.show)
	p.end()
	if err != nil {
		return err
	}
	return a.show(info)
}
