package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost"
	"lodge/vmhost/template"
)

// helper returns images whose helper is a shell script. It gets the arguments that lodged would
// get.
func helper(t *testing.T, script string) images {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "helper")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return images{stateDir: dir, dir: filepath.Join(dir, "images"), fallback: "debian-13", program: program}
}

func TestBuildByHelper(t *testing.T) {
	const step = `echo '{"progress":{"phase":"packages","text":"'"$*"'","elapsed_ms":1500}}'` + "\n"
	for name, test := range map[string]struct {
		script, want string // want is part of the error; none if empty
	}{
		"built":            {step + `echo noise; echo '{"image":{"name":"debian-13","bytes":7}}'`, ""},
		"refused":          {step + `echo '{"error":{"kind":"no-space","error":"the disk is full","hint":"Make room."}}'`, "the disk is full"},
		"killed":           {step + `echo why >&2; kill -9 $$`, "ended without a result: signal: killed: why"},
		"ended by nothing": {step, "ended without a result"},
	} {
		t.Run(name, func(t *testing.T) {
			i := helper(t, test.script)
			var steps []gateway.Progress
			built, err := i.Build(t.Context(), "", func(p gateway.Progress) { steps = append(steps, p) })
			if test.want == "" && (err != nil || built != api.Image{Name: "debian-13", Bytes: 7}) {
				t.Errorf("%+v, %v", built, err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			want := gateway.Progress{
				Phase: "packages", Text: "build-image -json -state-dir " + i.stateDir + " -- debian-13", Elapsed: 1500 * time.Millisecond,
			}
			if len(steps) != 1 || steps[0] != want {
				t.Errorf("steps %+v, want %+v", steps, want)
			}
		})
	}
}

// Only the names of recipes reach a unit, where systemd expands $.
func TestBuildRefuses(t *testing.T) {
	for _, name := range []string{"debian-1", "${HOME}", "$debian-13", "debian-13 ", "../debian-13", "-h"} {
		i := helper(t, `echo >"$4/ran"`)
		_, err := i.Build(t.Context(), name, func(gateway.Progress) {})
		e, ok := errors.AsType[*gateway.Error](err)
		if !ok || e.Kind != gateway.KindInvalid || !strings.Contains(e.Hint, "debian-13, debian-12") {
			t.Errorf("%q: got %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(i.stateDir, "ran")); err == nil {
			t.Errorf("%q: the helper ran", name)
		}
	}
	unit := []string{"systemd-run", "--"}
	for _, i := range []images{{program: "/bin/lodged", stateDir: "/srv/$USER"}, {program: "/srv/$USER/lodged", stateDir: "/srv"}} {
		if args, err := i.command(unit, "debian-13"); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%+v: got %q, %v", i, args, err)
		}
		if _, err := i.command(nil, "debian-13"); err != nil {
			t.Errorf("%+v without systemd: %v", i, err)
		}
	}
}

// The value of a proxy may have a password, and all users can read a command line.
func TestHelperUnitHidesProxies(t *testing.T) {
	t.Setenv("https_proxy", "http://me:secret@proxy:3128")
	args := transientUnit()
	if !slices.Contains(args, "--setenv=https_proxy") || strings.Contains(strings.Join(args, " "), "secret") {
		t.Errorf("got %q", args)
	}
}

// A build ends, with time to clean up, when its caller or the daemon has gone: the helper's
// standard input ends.
func TestBuildEndsWithItsAsker(t *testing.T) {
	i := helper(t, `echo '{"progress":{"phase":"packages"}}'; cat; echo cleaned >"$4/cleaned"`)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := i.Build(ctx, "debian-12", func(gateway.Progress) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(i.stateDir, "cleaned")); err != nil {
		t.Error(err)
	}
}

// The helper itself answers with an event when it cannot build.
func TestHelperRefuses(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"build-image", "-json", "-state-dir", t.TempDir(), "--", "debian-1"}
	if err := run(t.Context(), args, strings.NewReader(""), &stdout, &stderr); err != nil {
		t.Errorf("%v: %s", err, stderr.String())
	}
	if !strings.HasPrefix(stdout.String(), `{"error":{"kind":"invalid","error":"no image named \"debian-1\"`) {
		t.Errorf("output %s", stdout.String())
	}
	if err := run(t.Context(), append(args[:1:1], args[2:]...), nil, &stdout, &stderr); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("without -json: %v", err)
	}
}

// newTemplates returns images with the templates of a real host that does not run, and the id of
// the one that there is.
func newTemplates(t *testing.T) (i images, id string) {
	t.Helper()
	state := t.TempDir()
	host, err := vmhost.New(vmhost.Config{StateDir: state, RunDir: t.TempDir(), Directory: gatewaytest.NewDirectory(t, &gatewaytest.Records{}), Layers: new(gatewaytest.Layers), Checkpoints: new(gatewaytest.Checkpoints)})
	gatewaytest.Must(t, err)
	store, err := template.NewStore(filepath.Join(state, "templates"))
	gatewaytest.Must(t, err)
	draft, err := store.Draft(template.Key{Image: "debian-13", CPUs: 2, MemoryMiB: 1024})
	gatewaytest.Must(t, err)
	for _, file := range []string{draft.Disk, draft.Memory} {
		gatewaytest.Must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	}
	made, err := draft.Publish(t.Context())
	gatewaytest.Must(t, err)
	return images{dir: filepath.Join(state, "images"), host: host}, made.ID
}

func TestListImages(t *testing.T) {
	i, id := newTemplates(t)
	if err := os.WriteFile(filepath.Join(i.dir, "debian-13.json"), []byte(`{"name":"debian-13","disk":{"file":"debian-13.raw","bytes":10}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := i.List(t.Context())
	if err != nil || len(list.Images) != 0 || len(list.Damaged) != 1 || !strings.Contains(list.Damaged[0].Msg, "debian-13") {
		t.Errorf("%+v, %v", list, err)
	}
	if len(list.Templates) != 1 {
		t.Fatalf("templates %+v", list.Templates)
	}
	got := list.Templates[0]
	want := api.Template{ID: id, Image: "debian-13", CPUs: 2, MemoryMiB: 1024, Bytes: 2 << 20, Built: got.Built}
	if got != want || time.Since(got.Built) > time.Hour {
		t.Errorf("template %+v, want %+v", got, want)
	}
}

func TestRemoveTemplate(t *testing.T) {
	i, id := newTemplates(t)
	gatewaytest.Must(t, os.WriteFile(filepath.Join(i.dir, "own.json"), []byte("{}"), 0o600)) // a damaged image
	for name, row := range map[string]struct {
		kind      gateway.Kind
		msg, hint string
	}{
		"debian-13":           {gateway.KindInvalid, "debian-13 is an image", "lodge image ls"},
		"own":                 {gateway.KindInvalid, "own is an image", "lodge image ls"},
		"absent":              {gateway.KindNotFound, `there is no template "absent"`, "lodge image ls"},
		"../images/debian-13": {gateway.KindNotFound, "there is no template", "lodge image ls"},
		"..":                  {gateway.KindNotFound, "there is no template", "lodge image ls"},
		"":                    {gateway.KindNotFound, "there is no template", "lodge image ls"},
	} {
		err := i.RemoveTemplate(t.Context(), name)
		if e, ok := errors.AsType[*gateway.Error](err); !ok || e.Kind != row.kind || !strings.Contains(e.Msg, row.msg) || !strings.Contains(e.Hint, row.hint) {
			t.Errorf("%q: %v (%+v), want %+v", name, err, e, row)
		}
	}
	if err := i.RemoveTemplate(t.Context(), id); err != nil {
		t.Error(err)
	}
	if list, err := i.List(t.Context()); err != nil || len(list.Templates) != 0 {
		t.Errorf("left: %+v, %v", list.Templates, err)
	}
}

// preparing is a host that reports each call of PrepareTemplate.
type preparing struct {
	templates
	calls chan context.Context
}

func (p preparing) PrepareTemplate(ctx context.Context) error {
	p.calls <- ctx
	return nil
}

// A build that succeeds has a template made after it, for as long as the daemon runs: the request
// has ended by then.
func TestBuildPreparesATemplate(t *testing.T) {
	built := make(chan struct{}, 1)
	i := helper(t, `echo '{"error":{"kind":"no-space","error":"full"}}'`)
	i.built = built
	if _, err := i.Build(t.Context(), "", func(gateway.Progress) {}); err == nil || len(built) != 0 {
		t.Errorf("after a build that failed with %v, %d templates are due", err, len(built))
	}
	i = helper(t, `echo '{"image":{"name":"debian-13"}}'`)
	i.built = built
	for range 2 { // the second has nowhere to go, and does not wait
		request, end := context.WithCancel(t.Context())
		if _, err := i.Build(request, "", func(gateway.Progress) {}); err != nil {
			t.Error(err)
		}
		end()
	}
	host := preparing{calls: make(chan context.Context)}
	daemon, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- images{host: host, built: built}.prepareTemplates(daemon) }()
	if ctx := <-host.calls; ctx != daemon {
		t.Error("the template is not prepared with the daemon's context")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
