package controltest

import (
	"context"
	"slices"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// fakeImages are one image that is there, and one that is damaged when the disk is full. There are a template of the first,
// and one whose image is absent.
type fakeImages struct{ h *Host }

// Build implements api.Images.
func (f fakeImages) Build(_ context.Context, name string, progress func(gateway.Progress)) (api.Image, error) {
	if name != "" && name != gateway.DefaultImage {
		return api.Image{}, gateway.Invalid("no image named %q can be built", name).WithHint("Build debian-13.")
	}
	progress(gateway.Progress{Phase: "packages", Text: "installing"})
	if f.h.full.Load() {
		return api.Image{}, gateway.Errorf(gateway.KindNoSpace, "the host's disk is full").WithHint("Make room there.")
	}
	return api.Image{Name: gateway.DefaultImage, Bytes: 1 << 30, Built: time.Unix(1e9, 0)}, nil
}

// List implements api.Images.
func (f fakeImages) List(context.Context) (api.ImageList, error) {
	if f.h.full.Load() {
		return api.ImageList{Damaged: []*gateway.Error{gateway.Invalid("the image \"debian-13\" is incomplete").WithHint("Build it again.")}}, nil
	}
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	return api.ImageList{
		Images:    []api.Image{{Name: gateway.DefaultImage, Bytes: 1 << 30, Built: time.Unix(1e9, 0)}},
		Templates: slices.Clone(f.h.templates),
	}, nil
}

// RemoveTemplate implements api.Images.
func (f fakeImages) RemoveTemplate(_ context.Context, id string) error {
	f.h.mu.Lock()
	defer f.h.mu.Unlock()
	if id == gateway.DefaultImage {
		return gateway.Invalid("%s is an image, and only templates can be removed", id).WithHint("lodge image ls lists them below their images.")
	}
	i := slices.IndexFunc(f.h.templates, func(t api.Template) bool { return t.ID == id })
	if i < 0 {
		return gateway.Errorf(gateway.KindNotFound, "there is no template %q", id).WithHint("lodge image ls lists the templates.")
	}
	f.h.templates = slices.Delete(f.h.templates, i, i+1)
	return nil
}
