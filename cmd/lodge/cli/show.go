package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"lodge/gateway"
	"lodge/gateway/control"
)

// describe writes what a person wants to know of a VM. Errors of w come up when it is flushed.
func describe(w io.Writer, v control.Info) {
	state := v.State
	if v.Reason != "" {
		state += " (" + v.Reason + ")"
	}
	rows := [][2]string{
		{"name", v.Name},
		{"state", state},
		{"url", v.URL},
		{"mail", "anything@" + v.MailDomain},
		{"ssh", "lodge ssh " + v.Name},
		{"address", v.Addr.String()},
		{"image", v.Image},
		{"size", fmt.Sprintf("%d CPUs, %d MiB memory, %d GiB disk", v.CPUs, v.MemoryMiB, v.DiskGiB)},
		{"shared", shares(v.Shares)},
		{"created", v.Created.Local().Format("2006-01-02 15:04:05")},
	}
	for _, row := range rows {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
}

func shares(all []gateway.Share) string {
	var public []string
	for _, s := range all {
		switch {
		case s.Visibility != gateway.Public:
		case s.Port == gateway.DefaultPort:
			public = append(public, "the page")
		default:
			public = append(public, fmt.Sprintf("port %d", s.Port))
		}
	}
	if len(public) == 0 {
		return "private"
	}
	return strings.Join(public, ", ") + " with everyone"
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
