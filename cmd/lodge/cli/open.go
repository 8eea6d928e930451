package cli

import (
	"context"
	"io"
)

type openCmd struct {
	named

	As string `help:"Log in as somebody else, who may open a page of the VM." placeholder:"ADDRESS" predictor:"person"`
}

// Run prints a link that logs its visitor in to the VM's pages, once.
func (c *openCmd) Run(ctx context.Context, a *app) error {
	url, err := a.client.Login(ctx, c.Name, c.As)
	if err != nil {
		return err
	}
	return a.print(map[string]string{"url": url}, func(w io.Writer) { row(w, url) })
}
