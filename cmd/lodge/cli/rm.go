package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"lodge/gateway"
)

type rmCmd struct {
	named

	Yes bool `help:"Do not ask." short:"y"`
}

// Run deletes a VM.
func (c *rmCmd) Run(ctx context.Context, a *app) error {
	if _, err := a.client.Show(ctx, c.Name); err != nil {
		return err // before asking
	}
	if !c.Yes {
		if err := a.confirm("Delete " + c.Name + " with its disk, its mail and its objects?"); err != nil {
			return err
		}
	}
	if err := a.client.Remove(ctx, c.Name); err != nil {
		return err
	}
	return a.print(map[string]string{"removed": c.Name}, func(w io.Writer) {
		row(w, c.Name+" is gone.")
	})
}

// confirm asks a person. Without one at a terminal the answer is no.
func (a *app) confirm(question string) error {
	if _, ok := terminal(a.in); !ok {
		return gateway.Invalid("this needs a yes, and there is no terminal to ask at").WithHint("Add --yes if you are sure.")
	}
	if _, err := fmt.Fprintf(a.err, "%s [y/N] ", question); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	reply, err := bufio.NewReader(a.in).ReadString('\n')
	reply = strings.ToLower(strings.TrimSpace(reply))
	if err != nil || (reply != "y" && reply != "yes") {
		return gateway.Errorf(gateway.KindConflict, "nothing was done")
	}
	return nil
}
