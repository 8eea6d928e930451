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
			_, _ = fmt.Fprintln(w, "No VMs yet. Make one: lodge new hello") // flushed, and checked, by print
			return
		}
		_, _ = fmt.Fprintln(w, "NAME\tSTATE\tIMAGE\tCPUS\tMEMORY\tDISK\tURL")
		for _, v := range all {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d MiB\t%d GiB\t%s\n",
				v.Name, v.State, v.Image, v.CPUs, v.MemoryMiB, v.DiskGiB, v.URL)
		}
	})
}
