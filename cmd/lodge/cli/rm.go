package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"

	"lodge/gateway"
	"lodge/gateway/api"
)

type rmCmd struct {
	severalNamed

	Yes bool `help:"Do not ask." short:"y"`
}

// Run removes VMs. It asks once, for those that exist.
func (c *rmCmd) Run(ctx context.Context, a *app) error {
	var found []string
	missing := each(c.Names, func(name string) (api.VM, error) { return a.client.Show(ctx, name) }, func(v api.VM) error {
		found = append(found, v.Name)
		return nil
	})
	if len(found) == 0 {
		return missing
	}
	if !c.Yes {
		whose := "its disk"
		if len(found) > 1 {
			whose = "their disks"
		}
		if err := a.confirm("Remove " + strings.Join(found, ", ") + " with " + whose + ", mail and objects?"); err != nil {
			return together(missing, err)
		}
	}
	remove := func(name string) (string, error) { return name, a.client.Remove(ctx, name) }
	err := each(found, remove, func(name string) error {
		return a.print(map[string]string{"removed": name}, func(w io.Writer) { row(w, name+" is removed.") })
	})
	return together(missing, err)
}

// confirm asks a person. Without one at a terminal the answer is no.
func (a *app) confirm(question string) error {
	if _, ok := terminal(a.in); !ok {
		return gateway.Invalid("refusing without --yes: stdin is not a terminal").WithHint("Add --yes.")
	}
	if _, err := fmt.Fprintf(a.err, "%s [y/N] ", question); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	reply, err := bufio.NewReader(a.in).ReadString('\n')
	reply = strings.ToLower(strings.TrimSpace(reply))
	if err != nil || (reply != "y" && reply != "yes") {
		return gateway.Errorf(gateway.KindConflict, "nothing was removed")
	}
	return nil
}
