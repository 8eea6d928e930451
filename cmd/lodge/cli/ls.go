package cli

import (
	"context"
	"fmt"
	"io"
)

type lsCmd struct{}

// Run lists the VMs.
func (*lsCmd) Run(ctx context.Context, a *app) error {
	all, err := a.client.List(ctx)
	if err != nil {
		return err
	}
	return a.print(all, func(w io.Writer) {
		if len(all) == 0 {
			row(w, "No VMs. Create one: lodge new hello")
			return
		}
		row(w, "NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "DISK", "URL")
		for _, v := range all {
			row(w, v.Name, v.State, v.Image, v.CPUs, fmt.Sprint(v.MemoryMiB, " MiB"), fmt.Sprint(v.DiskGiB, " GiB"), v.URL)
		}
	})
}
