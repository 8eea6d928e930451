package cli

import (
	"context"
	"io"

	"lodge/gateway/api"
)

type setCmd struct {
	severalNamed

	WakeOnRequest  *bool `help:"Whether a web request starts a stopped VM, if its visitor may open the page." negatable:""`
	RollbackInside *bool `help:"Whether programs in the VM may roll it back to a checkpoint." negatable:""`
}

// Run changes settings of VMs.
func (c *setCmd) Run(ctx context.Context, a *app) error {
	set := func(name string) (api.VM, error) {
		return a.client.Set(ctx, name, api.Settings{WakeOnRequest: c.WakeOnRequest, RollbackInside: c.RollbackInside})
	}
	return each(c.Names, set, func(v api.VM) error { return a.print(v, func(w io.Writer) { describe(w, v) }) })
}
