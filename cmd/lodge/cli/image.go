package cli

import (
	"context"
	"fmt"
	"io"
)

type imageCmd struct {
	Build imageBuildCmd `cmd:"" help:"Build a base image from Debian's packages, in a minute or two."`
	Ls    imageLsCmd    `cmd:"" help:"List the base images."`
}

type imageBuildCmd struct {
	Name string `arg:"" help:"Such as debian-12; the host's default when left out." optional:""`
}

// Run builds an image. VMs that were made from an older one keep theirs.
func (c *imageBuildCmd) Run(ctx context.Context, a *app) error {
	p := a.progress()
	defer p.end()
	built, err := a.client.BuildImage(ctx, c.Name, p.show)
	if err != nil {
		return err
	}
	p.end()
	return a.print(built, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "%s is built (%s).\n", built.Name, size(built.Bytes))
	})
}

type imageLsCmd struct{}

// Run lists the images; those that are damaged come as an error behind the others.
func (*imageLsCmd) Run(ctx context.Context, a *app) error {
	list, err := a.client.Images(ctx)
	if err != nil {
		return err
	}
	var damaged failures
	for _, e := range list.Damaged {
		damaged = append(damaged, e)
	}
	if err := a.print(list.Images, func(w io.Writer) {
		if len(list.Images) == 0 {
			_, _ = fmt.Fprintln(w, "No images yet. Build one: lodge image build") // flushed, and checked, by print
			return
		}
		_, _ = fmt.Fprintln(w, "NAME\tSIZE\tBUILT")
		for _, i := range list.Images {
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", i.Name, size(i.Bytes), i.Built.Local().Format("2006-01-02 15:04:05"))
		}
	}); err != nil {
		return err
	}
	if len(damaged) > 0 {
		return damaged
	}
	return nil
}
