package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// describe writes a VM as a table.
func describe(w io.Writer, v api.VM) {
	state := v.State
	if v.Reason != "" {
		state += " (" + v.Reason + ")"
	}
	row(w, "name", v.Name)
	row(w, "state", state)
	row(w, "url", v.URL)
	row(w, "mail", "anything@"+v.MailDomain)
	row(w, "ssh", "lodge ssh "+v.Name)
	row(w, "address", v.Addr)
	row(w, "image", v.Image)
	row(w, "size", fmt.Sprintf("%d CPUs, %d MiB memory, %d GiB disk", v.CPUs, v.MemoryMiB, v.DiskGiB))
	row(w, "shared", shares(v.Shares))
	if len(v.Buckets) > 0 {
		var names []string
		for _, b := range v.Buckets {
			names = append(names, b.Bucket)
		}
		row(w, "shared buckets", strings.Join(names, ", "))
	}
	if len(v.Domains) > 0 {
		row(w, "domains", domainNames(v))
	}
	row(w, "wake on request", map[bool]string{true: "yes", false: "no"}[v.WakeOnRequest])
	if v.RollbackInside {
		row(w, "rollback inside", "yes")
	}
	if p := v.CheckpointPlan; p != nil {
		row(w, "checkpoints", fmt.Sprintf("every %s, %d are kept", time.Duration(p.EverySeconds)*time.Second, p.Keep))
	}
	row(w, "created", v.Created.Local().Format("2006-01-02 15:04:05"))
}

// domainNames lists the custom domains of a VM, with their ports.
func domainNames(v api.VM) string {
	var all []string
	for _, d := range v.Domains {
		var notes []string
		if d.Passthrough || d.Port != gateway.DefaultPort {
			notes = append(notes, fmt.Sprintf("port %d", d.Port))
		}
		if d.Passthrough {
			notes = append(notes, "passthrough")
		}
		if d.Mail {
			notes = append(notes, "mail")
		}
		if len(notes) > 0 {
			d.Name += " (" + strings.Join(notes, ", ") + ")"
		}
		all = append(all, d.Name)
	}
	return strings.Join(all, ", ")
}

func shares(all []api.Share) string {
	var public, others []string
	for _, s := range all {
		if s.Visibility == gateway.Public {
			public = append(public, portName(s.Port))
		} else {
			with := s.With
			if s.Visibility == gateway.Link {
				with = append([]string{"who has a link"}, with...)
			}
			others = append(others, portName(s.Port)+" with "+strings.Join(with, ", "))
		}
	}
	if len(public) > 0 {
		others = append([]string{strings.Join(public, ", ") + " with everyone"}, others...)
	}
	if len(others) == 0 {
		return "private"
	}
	return strings.Join(others, "; ")
}

type showCmd struct{ named }

// Run shows one VM.
func (c *showCmd) Run(ctx context.Context, a *app) error {
	info, err := a.client.Show(ctx, c.Name)
	if err != nil {
		return err
	}
	return a.print(info, func(w io.Writer) { describe(w, info) })
}
