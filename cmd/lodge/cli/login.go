package cli

import (
	"context"
	"io"
)

type loginCmd struct{ named }

// Run makes a login link.
func (c *loginCmd) Run(ctx context.Context, a *app) error {
	url, err := a.client.Login(ctx, c.Name, "")
	if err != nil {
		return err
	}
	return a.print(map[string]string{"url": url}, func(w io.Writer) { row(w, url) })
}
