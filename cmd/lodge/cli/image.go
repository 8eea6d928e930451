package cli

import (
	"context"
	"fmt"
	"io"

	"lodge/gateway/api"
)

type imageCmd struct {
	Build imageBuildCmd `cmd:"" help:"Build a base image from Debian's packages."`
	Ls    imageLsCmd    `cmd:"" help:"List the base images and the templates made from them."`
	Rm    imageRmCmd    `cmd:"" help:"Remove a template."`
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

// Help is the text below the usage.
func (*imageLsCmd) Help() string {
	return "A template is a booted guest, from which lodge new resumes VMs of one image and size. lodged makes and removes templates by itself."
}

// Run lists the images, each with its templates. Damaged images follow as errors.
func (*imageLsCmd) Run(ctx context.Context, a *app) error {
	list, err := a.client.Images(ctx)
	if err != nil {
		return err
	}
	shown := struct {
		Images    []api.Image    `json:"images"`
		Templates []api.Template `json:"templates"`
	}{list.Images, list.Templates}
	if err := a.print(shown, func(w io.Writer) { imageTable(w, list) }); err != nil {
		return err
	}
	var damaged failures
	for _, e := range list.Damaged {
		damaged = append(damaged, e)
	}
	if len(damaged) > 0 {
		return damaged
	}
	return nil
}

// imageTable writes the images with their templates, then the templates whose image is damaged.
func imageTable(w io.Writer, list api.ImageList) {
	if len(list.Images) == 0 {
		row(w, "No images. Build one: lodge image build")
	}
	if len(list.Images)+len(list.Templates) == 0 {
		return
	}
	row(w, "NAME", "SIZE", "BUILT")
	listed := map[string]bool{}
	for _, i := range list.Images {
		listed[i.Name] = true
		row(w, i.Name, size(i.Bytes), i.Built.Local().Format(builtFormat))
		templateRows(w, list.Templates, i.Name)
	}
	for _, t := range list.Templates {
		if !listed[t.Image] {
			listed[t.Image] = true
			row(w, t.Image, "-", "-")
			templateRows(w, list.Templates, t.Image)
		}
	}
}

const builtFormat = "2006-01-02 15:04:05"

// templateRows writes the templates of an image.
func templateRows(w io.Writer, all []api.Template, image string) {
	for _, t := range all {
		if t.Image == image {
			row(w, "  "+t.ID, size(t.Bytes), t.Built.Local().Format(builtFormat), fmt.Sprintf("template: %d CPUs, %d MiB memory", t.CPUs, t.MemoryMiB))
		}
	}
}

type imageRmCmd struct {
	ID string `arg:"" help:"The template, one of lodge image ls." name:"template" predictor:"template"`
}

// Help is the text below the usage.
func (*imageRmCmd) Help() string {
	return "VMs that were resumed from the template keep their disks. The next VM of its size has a new one made."
}

// Run removes a template. It does not ask: lodged makes another when it needs one.
func (c *imageRmCmd) Run(ctx context.Context, a *app) error {
	if err := a.client.RemoveTemplate(ctx, c.ID); err != nil {
		return err
	}
	return a.print(map[string]string{"removed": c.ID}, func(w io.Writer) { row(w, c.ID+" is removed.") })
}
