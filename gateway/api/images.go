package api

import (
	"context"
	"time"

	"lodge/gateway"
)

// Images makes and lists base images; in lodged a helper process does the work.
type Images interface {
	// Build makes an image in place of an older one, which the VMs that were made from it keep. The empty name is the default
	// image. When ctx ends, nothing of the build is left.
	Build(ctx context.Context, name string, progress func(gateway.Progress)) (Image, error)
	// List returns the images in the order of their names.
	List(ctx context.Context) (ImageList, error)
}

// Image is a base image.
type Image struct {
	Name  string    `json:"name"`
	Bytes int64     `json:"bytes"` // that it occupies; the disk is sparse
	Built time.Time `json:"built"`
}

// ImageList are the images, and the errors of those that are damaged.
type ImageList struct {
	Images  []Image          `json:"images"`
	Damaged []*gateway.Error `json:"damaged"`
}

// Images lists the base images.
func (s Session) Images(ctx context.Context) (ImageList, error) {
	if err := s.allowed(verbImages); err != nil {
		return ImageList{}, err
	}
	list, err := s.api.Images.List(ctx)
	list.Images = append([]Image{}, list.Images...) // empty lists are [] in JSON
	list.Damaged = append([]*gateway.Error{}, list.Damaged...)
	return list, err
}

// BuildImage makes a base image, in one to two minutes. The empty name is the default image.
func (s Session) BuildImage(ctx context.Context, name string, progress func(gateway.Progress)) (Image, error) {
	if err := s.allowed(verbBuildImage); err != nil {
		return Image{}, err
	}
	return s.api.Images.Build(ctx, name, timed(progress))
}
