package cli

import (
	"context"
	"fmt"
	"io"
	"slices"

	"lodge/gateway/api"
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
		head := []any{"NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "DISK", "URL"}
		domains := slices.ContainsFunc(all, func(v api.VM) bool { return len(v.Domains) > 0 })
		if domains {
			head = append(head, "DOMAINS")
		}
		row(w, head...)
		for _, v := range all {
			cells := []any{v.Name, v.State, v.Image, v.CPUs, fmt.Sprint(v.MemoryMiB, " MiB"), fmt.Sprint(v.DiskGiB, " GiB"), v.URL}
			if domains {
				cells = append(cells, domainNames(v))
			}
			row(w, cells...)
		}
	})
}
