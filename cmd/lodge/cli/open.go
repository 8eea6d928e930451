package cli

import (
	"context"
	"io"
)

type openCmd struct {
	Name string `arg:"" help:"The VM's name; without it, the host's own page, whose login opens all VMs." name:"vm" optional:"" predictor:"vm"`
	As   string `help:"Log in as somebody else." placeholder:"ADDRESS" predictor:"person"`
}

// Run prints a link that logs its visitor in, once.
func (c *openCmd) Run(ctx context.Context, a *app) error {
	url, err := c.link(ctx, a)
	if err != nil {
		return err
	}
	return a.print(map[string]string{"url": url}, func(w io.Writer) { row(w, url) })
}

func (c *openCmd) link(ctx context.Context, a *app) (string, error) {
	if c.Name == "" {
		return a.client.LoginHost(ctx, c.As)
	}
	return a.client.Login(ctx, c.Name, c.As)
}
