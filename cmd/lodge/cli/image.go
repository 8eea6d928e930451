package cli

import (
	"context"
	"fmt"
	"io"
)

type imageCmd struct {
	Build imageBuildCmd `cmd:"" help:"Build a base image from Debian's packages."`
	Ls    imageLsCmd    `cmd:"" help:"List the base images."`
}

type imageBuildCmd struct {
	Name string `arg:"" help:"The name of an image, such as debian-12; without it, the host's default." optional:""`
}

// Run builds an image. Existing VMs keep the image they were created from.
func (c *imageBuildCmd) Run(ctx context.Context, a *app) error {
	p := a.progress()
	defer p.end()
	built, err := a.client.BuildImage(ctx, c.Name, p.show)
	if err != nil {
		return err
	}
	p.end()
	return a.print(built, func(w io.Writer) {
		row(w, fmt.Sprintf("%s is built (%s).", built.Name, size(built.Bytes)))
	})
}

type imageLsCmd struct{}

// Run lists the images. Damaged ones follow as errors.
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
			row(w, "No images. Build one: lodge image build")
			return
		}
		row(w, "NAME", "SIZE", "BUILT")
		for _, i := range list.Images {
			row(w, i.Name, size(i.Bytes), i.Built.Local().Format("2006-01-02 15:04:05"))
		}
	}); err != nil {
		return err
	}
	if len(damaged) > 0 {
		return damaged
	}
	return nil
}
