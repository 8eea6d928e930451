package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/control"
	"lodge/vmhost/image"
)

// buildImage implements "lodged build-image": it builds a base image without the daemon. Progress
// goes to stderr. With -json, stdout gets one control.Event per line, and the build ends when stdin
// does, however the calling daemon ended.
func buildImage(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("lodged build-image", flag.ContinueOnError)
	flags.SetOutput(stderr)
	stateDir := flags.String("state-dir", gateway.DefaultStateDir, "`directory` of all that is kept")
	asJSON := flags.Bool("json", false, "write events to stdout and end with stdin")
	if err := flags.Parse(args); err != nil {
		return err
	}
	recipe := image.Recipe{Name: gateway.DefaultImage, Dir: filepath.Join(*stateDir, "images")}
	if flags.NArg() > 0 {
		recipe.Name = flags.Arg(0)
	}
	if !*asJSON {
		recipe.Progress = printer(stderr)
		return image.Build(ctx, recipe)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, stdin) // an error ends it as well
		cancel()
	}()
	events := json.NewEncoder(stdout)
	recipe.Progress = func(p gateway.Progress) {
		step := api.ProgressOf(p)
		_ = events.Encode(control.Event{Progress: &step}) // if the reader has gone, stdin has ended, too
	}
	built, err := build(ctx, recipe)
	if err != nil {
		return events.Encode(control.Event{Error: api.ErrorOf(err)})
	}
	return events.Encode(control.Event{Image: &built})
}

func build(ctx context.Context, recipe image.Recipe) (api.Image, error) {
	if err := image.Build(ctx, recipe); err != nil {
		return api.Image{}, err
	}
	img, err := image.Open(recipe.Dir, recipe.Name)
	if err != nil {
		return api.Image{}, err
	}
	return showImage(img)
}

// printer writes one line for each step whose text differs from the step before.
func printer(w io.Writer) func(gateway.Progress) {
	var last gateway.Progress
	return func(p gateway.Progress) {
		if p.Phase != last.Phase || p.Text != last.Text {
			_, _ = fmt.Fprintf(w, "%6s  %-10s %s\n", p.Elapsed.Round(100*time.Millisecond), p.Phase, p.Text) // only a display
		}
		last = p
	}
}
