package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
	"lodge/vmhost/image"
	"lodge/vmhost/template"
)

// buildEndLimit is how long a build may take to remove its files, once its caller has gone.
const buildEndLimit = 30 * time.Second

// images are the base images of this host, and the templates. A helper process builds the images
// (build-image): a build needs mounts and namespaces, which the unit of lodged forbids.
type images struct {
	stateDir, dir string
	fallback      string // the image for the empty name
	program       string // lodged, as the helper
	host          templates
	built         chan struct{} // holds a token after a build, until a template is prepared
}

// templates are made from images; vmhost.Host has them.
type templates interface {
	Templates() ([]template.Template, error)
	RemoveTemplate(id string) error
	// PrepareTemplate has the template of the default image and size made, unless there is one.
	PrepareTemplate(ctx context.Context) error
}

func newImages(cfg Config, host templates) (images, error) {
	self, err := os.Executable()
	if err != nil {
		return images{}, fmt.Errorf("find the image builder: %w", err)
	}
	return images{
		stateDir: cfg.StateDir, dir: cfg.path("images"), fallback: cfg.Image, program: self, host: host, built: make(chan struct{}, 1),
	}, nil
}

// prepareTemplates has a template made after each build, until ctx ends: the request of a build
// ends with it.
func (i images) prepareTemplates(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-i.built:
			_ = i.host.PrepareTemplate(ctx) // the first VM has it made otherwise
		}
	}
}

// List implements api.Images.
func (i images) List(context.Context) (api.ImageList, error) {
	found, damaged := image.List(i.dir)
	var list api.ImageList
	for _, img := range found {
		shown, err := showImage(img)
		if err != nil {
			return list, err
		}
		list.Images = append(list.Images, shown)
	}
	if several, ok := damaged.(interface{ Unwrap() []error }); ok {
		for _, err := range several.Unwrap() {
			list.Damaged = append(list.Damaged, api.ErrorOf(err))
		}
	}
	made, err := i.host.Templates()
	for _, t := range made {
		list.Templates = append(list.Templates, api.Template{
			ID: t.ID, Image: t.Key.Image, CPUs: t.Key.CPUs, MemoryMiB: t.Key.MemoryMiB, Bytes: t.Bytes, Built: t.Built,
		})
	}
	return list, err
}

// RemoveTemplate implements api.Images.
func (i images) RemoveTemplate(_ context.Context, id string) error {
	err := i.host.RemoveTemplate(id)
	if gateway.KindOf(err) == gateway.KindNotFound && i.isImage(id) {
		return gateway.Invalid("%s is an image, and only templates can be removed", id).WithHint("lodge image ls lists them below their images.")
	}
	return err
}

// isImage reports whether there is an image of that name, damaged or not, or could be one.
func (i images) isImage(name string) bool {
	if slices.Contains(image.Names(), name) {
		return true
	}
	entries, _ := os.ReadDir(i.dir) // without it there is no image
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == name+".json" })
}

// Build implements api.Images. It returns when the helper ends, which it does when its standard
// input ends.
func (i images) Build(ctx context.Context, name string, progress func(gateway.Progress)) (api.Image, error) {
	args, err := i.command(helperUnit(), cmp.Or(name, i.fallback))
	if err != nil {
		return api.Image{}, err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // lodged itself
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return api.Image{}, fmt.Errorf("start the image builder: %w", err)
	}
	defer stdin.Close() //nolint:errcheck // nothing was written
	var last control.Event
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &eventReader{event: func(e control.Event) {
		if e.Progress != nil {
			progress(e.Progress.Step())
			return
		}
		last = e
	}}, &stderr
	cmd.Cancel, cmd.WaitDelay = stdin.Close, buildEndLimit
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return api.Image{}, ctx.Err()
	case last.Error != nil:
		return api.Image{}, last.Error
	case last.Image != nil:
		select {
		case i.built <- struct{}{}:
		default: // it is due already
		}
		return *last.Image, nil
	}
	return api.Image{}, fmt.Errorf("the image builder ended without a result: %w: %s", cmp.Or(err, io.ErrUnexpectedEOF), strings.TrimSpace(stderr.String()))
}

// command returns unit, then the command line of the helper. The name comes from a request, and
// systemd expands $ in the command of a unit: only the names of recipes are accepted.
func (i images) command(unit []string, name string) ([]string, error) {
	if !slices.Contains(image.Names(), name) {
		return nil, gateway.Invalid("no image named %q can be built", name).WithHint("Images that can be built: %s.", strings.Join(image.Names(), ", "))
	}
	if len(unit) > 0 && strings.Contains(i.program+i.stateDir, "$") {
		return nil, gateway.Invalid("systemd would expand the $ in %s or %s", i.program, i.stateDir).WithHint("Use a path without $.")
	}
	return append(unit, i.program, "build-image", "-json", "-state-dir", i.stateDir, "--", name), nil
}

// helperUnit returns the command that runs the helper. Where systemd runs this daemon, the helper
// gets a unit of its own, since it would inherit the daemon's restrictions; elsewhere it is a plain
// child, and there is no such command.
func helperUnit() []string {
	_, err := os.Stat("/run/systemd/system") // sd_booted(3)
	if err != nil || os.Getenv("INVOCATION_ID") == "" {
		return nil
	}
	return transientUnit()
}

// transientUnit returns the command that runs another one in a unit of its own.
func transientUnit() []string {
	args := []string{
		"systemd-run", "--quiet", "--collect", "--pipe", "--wait", "--service-type=exec", "--description=Lodge: build of a base image",
	}
	for _, key := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if _, ok := os.LookupEnv(key); ok {
			args = append(args, "--setenv="+key) // without the value, which may have a password
		}
	}
	return append(args, "--")
}

// showImage returns an image as the API shows it.
func showImage(img image.Image) (api.Image, error) {
	info, err := os.Stat(img.Disk)
	if err != nil {
		return api.Image{}, fmt.Errorf("examine image %s: %w", img.Name, err)
	}
	used := info.Size()
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		used = stat.Blocks * 512 // stat(2): always in units of 512
	}
	return api.Image{Name: img.Name, Bytes: used, Built: img.Built}, nil
}

// eventReader is an io.Writer that reads Events, one per line. It ignores other lines.
type eventReader struct {
	event func(control.Event)
	part  []byte // of a line
}

// Write implements io.Writer.
func (r *eventReader) Write(p []byte) (int, error) {
	const longest = 1 << 20
	r.part = append(r.part, p...)
	for {
		line, rest, ok := bytes.Cut(r.part, []byte("\n"))
		if !ok {
			if len(r.part) > longest {
				return 0, errors.New("read the image builder's events: a line is too long")
			}
			return len(p), nil
		}
		var e control.Event
		if json.Unmarshal(line, &e) == nil {
			r.event(e)
		}
		r.part = rest
	}
}
