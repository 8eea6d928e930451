package cli

import (
	"context"
	"fmt"
	"io"

	"lodge/gateway"
)

type shareCmd struct {
	named

	What []string `arg:"" help:"[PORT] public or private; without a port, the VM's page."`
}

// Run sets who can open a page.
func (c *shareCmd) Run(ctx context.Context, a *app) error {
	share, err := parseShare(c.What)
	if err != nil {
		return err
	}
	info, err := a.client.Share(ctx, c.Name, share)
	if err != nil {
		return err
	}
	domains := []string{} // an empty list is [] in JSON
	for _, d := range info.Domains {
		if d.Port == share.Port && !d.Passthrough { // else everyone may open it
			domains = append(domains, d.Name)
		}
	}
	answer := map[string]any{"name": c.Name, "port": share.Port, "visibility": share.Visibility, "url": info.URL, "domains": domains}
	return a.print(answer, func(w io.Writer) {
		for _, name := range append([]string{info.URL}, domains...) {
			row(w, fmt.Sprintf("%s is %s.", name, share.Visibility))
		}
	})
}

// parseShare reads "public", "8080 public" and the like.
func parseShare(words []string) (gateway.Share, error) {
	hint := "Examples: lodge share blog public; lodge share blog 8080 private"
	var share gateway.Share
	if len(words) == 2 {
		port, err := gateway.ParsePort(words[0])
		if err != nil {
			return share, err
		}
		share.Port, words = port, words[1:]
	}
	if len(words) != 1 {
		return share, gateway.Invalid("expected a port and public or private").WithHint("%s", hint)
	}
	share.Visibility = gateway.Visibility(words[0])
	if share.Visibility != gateway.Public && share.Visibility != gateway.Private {
		return share, gateway.Invalid("not a visibility: %q", words[0]).WithHint("%s", hint)
	}
	return share, nil
}
