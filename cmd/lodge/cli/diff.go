package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"

	"lodge/gateway"
)

type diffCmd struct {
	named

	From string `arg:"" optional:"" help:"A checkpoint; without it, the image."`
	To   string `arg:"" optional:"" help:"A later checkpoint; without it, now."`

	Text bool `help:"Show what was changed in text files too, as a unified diff."`
	All  bool `help:"List each file below new directories, and each package that came as a dependency."`
}

// Help is the text below the usage.
func (*diffCmd) Help() string {
	return "lodge diff blog before-upgrade shows what was changed since a checkpoint. The disk of a VM that is off, and of a checkpoint, is read by a small guest without a network.\n\n" +
		"Files are looked for below /etc, /usr/local, /opt, /srv, /home, /root, /var/www and /var/spool/cron. " +
		"Left out: files as their package has them, what programs generate, caches, ~/Maildir, and what Lodge itself writes.\n\n" +
		"--text shows files up to 64 KiB, but none that may hold a secret."
}

// Run lists what was changed in a VM.
func (c *diffCmd) Run(ctx context.Context, a *app) error {
	changes, err := a.client.Changes(ctx, c.Name, gateway.ChangesQuery{From: c.From, To: c.To, Text: c.Text})
	if err != nil {
		return err
	}
	if err = a.print(changes, func(w io.Writer) { c.list(w, changes) }); err != nil || a.JSON || changes.Text == "" {
		return err
	}
	return a.passed(strings.NewReader("\n"+changes.Text), false)
}

// list prints changes, one a line.
func (c *diffCmd) list(w io.Writer, changes gateway.Changes) {
	c.packages(w, changes.Packages)
	for _, account := range changes.Accounts {
		row(w, account.Kind, account.Change, account.Name)
	}
	for _, unit := range changes.Units {
		row(w, "unit", unit.Change, unit.Name)
	}
	c.files(w, changes.Files)
	for _, port := range changes.Ports {
		row(w, "port", "open", port.Protocol+" "+port.Addr, port.Program)
	}
	if changes.Cut {
		row(w, "There are too many files: the list is incomplete.")
	}
}

func (c *diffCmd) packages(w io.Writer, all []gateway.PackageChange) {
	dependencies := 0
	for _, p := range all {
		switch {
		case p.Change == gateway.Changed:
			row(w, "package", p.Change, p.Name, p.Was+" → "+p.Version)
		case p.Manual || c.All:
			row(w, "package", p.Change, p.Name, cmp.Or(p.Version, p.Was))
		default:
			dependencies++
		}
	}
	if dependencies > 0 {
		row(w, "package", "and", fmt.Sprintf("%d that others need", dependencies))
	}
}

// files lists files; a new directory is one line with all that is in it.
func (c *diffCmd) files(w io.Writer, all []gateway.FileChange) {
	for i := 0; i < len(all); i++ {
		f := all[i]
		below := 0
		if f.Type == "directory" && f.Change == gateway.Added && !c.All {
			for i+1+below < len(all) && strings.HasPrefix(all[i+1+below].Path, f.Path+"/") {
				below++
			}
		}
		if below == 0 {
			row(w, f.Type, f.Change, f.Path, detail(f))
			continue
		}
		var files int
		var bytes uint64
		for _, g := range all[i+1 : i+1+below] {
			if g.Type == "file" {
				files++
				bytes += uint64(max(0, g.Bytes)) //nolint:gosec // it is not negative
			}
		}
		row(w, f.Type, f.Change, f.Path+"/", fmt.Sprintf("%s, %s", english.Plural(files, "file", ""), humanize.IBytes(bytes)))
		i += below
	}
}

// detail is the rest of a file's line.
func detail(f gateway.FileChange) string {
	switch {
	case f.Change == gateway.Gone:
		return ""
	case f.Type == "link":
		return "→ " + f.Link
	case f.Change == gateway.Changed:
		return strings.Join(f.What, ", ")
	}
	return strings.Join([]string{f.Mode, f.Owner + ":" + f.Group, humanize.IBytes(uint64(max(0, f.Bytes)))}, " ") //nolint:gosec // as above
}

type historyCmd struct {
	named

	Last int `default:"10" help:"How many steps, at most 50."`
}

// Help is the text below the usage.
func (*historyCmd) Help() string {
	return "Each step is what lodge diff shows between two checkpoints; the last one is from the newest checkpoint to now. " +
		"A checkpoint is looked at once, which takes some seconds each."
}

// Run lists what was changed from checkpoint to checkpoint.
func (c *historyCmd) Run(ctx context.Context, a *app) error {
	steps, err := a.client.History(ctx, c.Name, c.Last)
	if err != nil {
		return err
	}
	return a.print(steps, func(w io.Writer) {
		for _, s := range steps {
			row(w, strings.TrimSpace(cmp.Or(s.From, "image")+" → "+cmp.Or(s.To, "now")+"  "+made(s.ToTime)))
			var lines bytes.Buffer
			new(diffCmd).list(&lines, s.Changes)
			if lines.Len() == 0 {
				lines.WriteString("nothing was changed\n")
			}
			for line := range strings.Lines(lines.String()) {
				_, _ = io.WriteString(w, "  "+line) // print reports it
			}
		}
	})
}

// made is the time of a checkpoint; empty for now.
func made(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Local().Format(time.DateTime)
}
