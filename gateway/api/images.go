package api

import (
	"context"
	"time"

	"lodge/gateway"
)

// Images makes and lists base images, in lodged by a helper process, and lists and removes
// templates.
type Images interface {
	// Build makes an image in place of an older one, which the VMs that were made from it keep. The
	// empty name is the default image. When ctx ends, nothing of the build is left.
	Build(ctx context.Context, name string, progress func(gateway.Progress)) (Image, error)
	// List returns the images in the order of their names, and the templates, the one used last first.
	List(ctx context.Context) (ImageList, error)
	// RemoveTemplate removes a template. VMs that were resumed from it keep their disks.
	RemoveTemplate(ctx context.Context, id string) error
}

// Image is a base image.
type Image struct {
	Name  string    `json:"name"`
	Bytes int64     `json:"bytes"` // that it occupies; the disk is sparse
	Built time.Time `json:"built"`
}

// Template is a booted guest from which new VMs of an image and size are resumed.
type Template struct {
	ID        string    `json:"id"`
	Image     string    `json:"image"`
	CPUs      int       `json:"cpus"`       // virtual processors
	MemoryMiB int       `json:"memory_mib"` // memory in MiB
	Bytes     int64     `json:"bytes"`      // that its disk and its memory occupy
	Built     time.Time `json:"built"`
}

// ImageList are the images, the errors of those that are damaged, and the templates.
type ImageList struct {
	Images    []Image          `json:"images"`
	Damaged   []*gateway.Error `json:"damaged"`
	Templates []Template       `json:"templates"`
}

// Images lists the base images and the templates.
func (s Session) Images(ctx context.Context) (ImageList, error) {
	if err := s.allowed(verbImages); err != nil {
		return ImageList{}, err
	}
	list, err := s.api.Images.List(ctx)
	list.Images = append([]Image{}, list.Images...) // empty lists are [] in JSON
	list.Damaged = append([]*gateway.Error{}, list.Damaged...)
	list.Templates = append([]Template{}, list.Templates...)
	return list, err
}

// RemoveTemplate removes a template. VMs that were resumed from it keep their disks; the next VM of
// its size has a new one made.
func (s Session) RemoveTemplate(ctx context.Context, id string) error {
	if err := s.allowed(verbRemoveTemplate); err != nil {
		return err
	}
	return s.api.Images.RemoveTemplate(ctx, id)
}

// BuildImage makes a base image, in one to two minutes. The empty name is the default image.
func (s Session) BuildImage(ctx context.Context, name string, progress func(gateway.Progress)) (Image, error) {
	if err := s.allowed(verbBuildImage); err != nil {
		return Image{}, err
	}
	return s.api.Images.Build(ctx, name, timed(progress))
}
