package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/control"
	"lodge/gateway/control/controltest"
)

func TestParseCopy(t *testing.T) {
	const file = "/tmp/f.txt"
	tests := []struct {
		src, dst string
		want     copyJob
		bad      bool
	}{
		{src: file, dst: "blog:b/k", want: copyJob{true, "blog", "b", "k", file}},
		{src: file, dst: "blog:b", want: copyJob{true, "blog", "b", "f.txt", file}},
		{src: file, dst: "blog:/b/dir/", want: copyJob{true, "blog", "b", "dir/f.txt", file}},
		{src: "blog:b/k", dst: "-", want: copyJob{false, "blog", "b", "k", "-"}},
		{src: "-", dst: "blog:b/k", want: copyJob{true, "blog", "b", "k", "-"}},
		{src: "blog:b/k/l:m", dst: "x", want: copyJob{false, "blog", "b", "k/l:m", "x"}},
		{src: "./a:b", dst: "blog:b/k", want: copyJob{true, "blog", "b", "k", "./a:b"}},
		{src: "-", dst: "blog:b/", bad: true},
		{src: "a/b", dst: "c/d", bad: true},
		{src: "blog:a/b", dst: "other:c/d", bad: true},
		{src: "blog:b", dst: "./x", bad: true},
		{src: "blog:", dst: "./x", bad: true},
		{src: "blog:b/k", dst: "", bad: true},
		{src: ":b/k", dst: "./x", bad: true},
		{src: file, dst: "s3://b/k", bad: true},
	}
	for _, test := range tests {
		t.Run(test.src+" "+test.dst, func(t *testing.T) {
			got, err := parseCopy(test.src, test.dst)
			if test.bad {
				if gateway.KindOf(err) != gateway.KindInvalid {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 20_000_000: "19 MiB", 5 << 30: "5.0 GiB", -1: "0 B"} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %s", bytes, got)
		}
	}
}

func TestTerminalProgress(t *testing.T) {
	var out bytes.Buffer
	p := &progress{w: &out, width: 60}
	p.show(gateway.Progress{Phase: "disk", Text: "copying", Done: 1, Total: 4, Elapsed: time.Second})
	p.show(gateway.Progress{Phase: "disk", Text: "copying", Done: 4, Total: 4, Elapsed: 2 * time.Second})
	p.show(gateway.Progress{Phase: "define", Text: strings.Repeat("long ", 30), Elapsed: 3 * time.Second})
	p.end()
	for line := range strings.SplitSeq(out.String(), "\n") {
		for redrawn := range strings.SplitSeq(line, "\r\x1b[K") {
			if len([]rune(redrawn)) >= 60 {
				t.Errorf("wider than the terminal: %q", redrawn)
			}
		}
	}
	if !strings.Contains(out.String(), "[######..................]  25%") || !strings.HasSuffix(out.String(), "\n") {
		t.Errorf("drew %q", out.String())
	}
}

func TestHomes(t *testing.T) {
	dir := t.TempDir()
	passwd := fmt.Sprintf("root:x:0:0:root:%[1]s:/bin/bash\nann:x:1000:1000::%[1]s/..:/bin/sh\nbob:x:1001:1001::%[1]s/missing:/bin/sh\n"+
		"daemon:x:1:1::%[1]s/..:/bin/false\nnobody:x:65534:65534::/:/bin/false\nbroken\n", dir)
	want := []string{dir, dir + "/.."}
	if diff := cmp.Diff(want, homes(strings.NewReader(passwd))); diff != "" {
		t.Error(diff)
	}
}

// Ctrl-C during lodge new removes the VM, prints why, and exits as shells expect.
func TestInterrupted(t *testing.T) {
	h := controltest.Start(t)
	begun := h.Stick()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	var stderr bytes.Buffer
	err := Run(ctx, control.NewClient(h.Socket), []string{"new", "hello"}, Stdio{strings.NewReader(""), io.Discard, &stderr})
	if ExitCode(err) != exitInterrupt || !strings.HasSuffix(stderr.String(), "lodge: interrupted\n") {
		t.Errorf("exit %d: %s", ExitCode(err), stderr.String())
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(h.Directory.All()) > 0 {
		<-tick.C
	}
}

// Keys reach the console, its output is shown, and Ctrl-] leaves.
func TestConsole(t *testing.T) {
	h := controltest.Start(t)
	h.Add(t, "hello")
	stdin, keys := io.Pipe()
	screen, stdout := io.Pipe()
	left := make(chan error, 1)
	go func() {
		left <- Run(t.Context(), control.NewClient(h.Socket), []string{"console", "hello"}, Stdio{stdin, stdout, io.Discard})
	}()
	for _, step := range []struct{ shown, typed string }{{"login: ", "root"}, {"ROOT", "\x1d"}} {
		shown := make([]byte, len(step.shown))
		if _, err := io.ReadFull(screen, shown); err != nil || string(shown) != step.shown {
			t.Fatalf("%q, %v", shown, err)
		}
		if _, err := io.WriteString(keys, step.typed); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-left; err != nil {
		t.Error(err)
	}
}
