package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"lodge/gateway"
	"lodge/vmhost/image"
)

type imageCmd struct {
	StateDir string `default:"${state}" help:"Where lodged keeps its state." placeholder:"DIR"`

	Build imageBuildCmd `cmd:"" help:"Build a base image from Debian's packages, in a minute or two."`
	Ls    imageLsCmd    `cmd:"" help:"List the base images."`
}

// dir is where images are.
func (c *imageCmd) dir() string { return filepath.Join(c.StateDir, "images") }

// builtImage is the JSON form of an image.
type builtImage struct {
	Name  string    `json:"name"`
	Disk  string    `json:"disk"`
	Bytes int64     `json:"bytes"` // that it takes; the disk is sparse
	Built time.Time `json:"built"`
}

func describeImage(img image.Image) (builtImage, error) {
	used, err := diskUsage(img.Disk)
	if err != nil {
		return builtImage{}, fmt.Errorf("look at image %s: %w", img.Name, err)
	}
	return builtImage{img.Name, img.Disk, used, img.Built}, nil
}

type imageBuildCmd struct {
	Name string `arg:"" default:"${image}" help:"${images}" optional:""`
}

// Run builds an image. VMs that were made from an older one keep theirs.
func (c *imageBuildCmd) Run(ctx context.Context, a *app) error {
	p := a.progress()
	defer p.end()
	dir := a.Image.dir()
	if err := image.Build(ctx, image.Recipe{Name: c.Name, Dir: dir, Progress: p.show}); err != nil {
		return err
	}
	p.end()
	img, err := image.Open(dir, c.Name)
	if err != nil {
		return err
	}
	built, err := describeImage(img)
	if err != nil {
		return err
	}
	return a.print(built, func(w io.Writer) {
		row(w, fmt.Sprintf("%s is built (%s).", built.Name, size(built.Bytes)))
	})
}

type imageLsCmd struct{}

// Run lists the images; those that are damaged come as an error behind the others.
func (*imageLsCmd) Run(a *app) error {
	if _, err := os.ReadDir(a.Image.dir()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return gateway.Errorf(gateway.KindDenied, "cannot read the images: %v", err).Because(err).WithHint("Run the same command as root, with sudo.")
	}
	found, bad := image.List(a.Image.dir())
	images := []builtImage{} // not nil: an empty list is [] in JSON
	for _, img := range found {
		built, err := describeImage(img)
		if err != nil {
			return err
		}
		images = append(images, built)
	}
	err := a.print(images, func(w io.Writer) {
		if len(images) == 0 {
			row(w, "No images yet. Build one: lodge image build")
			return
		}
		row(w, "NAME", "SIZE", "BUILT")
		for _, i := range images {
			row(w, i.Name, size(i.Bytes), i.Built.Local().Format("2006-01-02 15:04:05"))
		}
	})
	return errors.Join(bad, err)
}
