package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"lodge/gateway"
	"lodge/gateway/control"
	"lodge/gateway/control/controltest"
	"lodge/storage"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"lodge": main}) }

// TestScripts runs the real main against a real control server, a fresh one per script; $SOCK is its socket.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			h := controltest.Start(t)
			testscript.Run(t, testscript.Params{
				Files: []string{file},
				Setup: func(env *testscript.Env) error {
					env.Setenv("SOCK", h.Socket)
					env.Setenv("TMPDIR", env.WorkDir)
					return nil
				},
				Cmds: commands(t, h),
			})
		})
	}
}

type command = func(ts *testscript.TestScript, neg bool, args []string)

// commands are what scripts say to the fakes, and to the last command's output.
func commands(t *testing.T, h *controltest.Host) map[string]command {
	t.Helper()
	return map[string]command{
		// full: the host's disk is full from now on.
		"full": func(*testscript.TestScript, bool, []string) { h.Fill() },
		// listening: something listens in every VM.
		"listening": func(*testscript.TestScript, bool, []string) { h.Listen() },
		// objects: S3 is there, the real one, on the socket beside lodged's.
		"objects": func(*testscript.TestScript, bool, []string) { serveObjects(t, h) },
		// random FILE BYTES makes a file of random bytes.
		"random": func(ts *testscript.TestScript, _ bool, args []string) {
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			text := make([]byte, n)
			_, _ = rand.Read(text) // crypto/rand.Read never fails
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
		},
		// receive VM QUEUE_ID FILE: mail comes in.
		"receive": func(ts *testscript.TestScript, _ bool, args []string) {
			vm, ok := h.Directory.ByName(args[0])
			if !ok {
				ts.Fatalf("no VM %s", args[0])
			}
			raw := ts.ReadFile(args[2])
			h.Receive(vm.ID, controltest.Mail{Raw: raw, Message: gateway.Message{
				QueueID: args[1], From: "a@example.org", Rcpt: "b@" + args[0] + ".lodge.localhost",
				Subject: "tab\there \x1b[31mred", Bytes: int64(len(raw)), Received: time.Unix(1e9, 0),
			}})
		},
		// shape FILE KEY...: each line of the file (stdout, stderr) is a JSON object, or an array of them, with exactly these keys.
		"shape": func(ts *testscript.TestScript, _ bool, args []string) {
			for line := range strings.SplitSeq(strings.TrimSpace(ts.ReadFile(args[0])), "\n") {
				for _, object := range objects(ts, line) {
					if diff := cmp.Diff(args[1:], slices.Sorted(maps.Keys(object))); diff != "" {
						ts.Fatalf("%s", diff)
					}
				}
			}
		},
	}
}

// serveObjects runs the storage service until the test ends.
func serveObjects(t *testing.T, h *controltest.Host) {
	t.Helper()
	s3, err := storage.New(storage.Config{
		Dir: t.TempDir(), Keyring: h.Keyring, Directory: h.Directory, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(t.Context(), filepath.Join(filepath.Dir(h.Socket), "s3.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s3.Handler(), ReadHeaderTimeout: time.Minute}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s3.Run(ctx); err != nil {
			t.Errorf("run S3: %v", err)
		}
	})
	running.Go(func() { _ = server.Serve(l) }) // it ends with Close
	t.Cleanup(func() {
		_ = server.Close()
		cancel()
		running.Wait()
	})
}

func objects(ts *testscript.TestScript, line string) []map[string]any {
	var many []map[string]any
	if strings.HasPrefix(line, "[") {
		ts.Check(json.Unmarshal([]byte(line), &many))
		return many
	}
	var one map[string]any
	ts.Check(json.Unmarshal([]byte(line), &one))
	return append(many, one)
}

// TestNotRoot runs lodge as nobody: the socket is root's alone, and the error says so.
func TestNotRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can become somebody else: run the tests as root")
	}
	h := controltest.Start(t)
	open(t, filepath.Dir(h.Socket)) // as /run/lodge may be open, while the socket is not
	dir := t.TempDir()
	open(t, dir)
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	lodge := filepath.Join(dir, "lodge")
	if err := os.WriteFile(lodge, own, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), lodge, "--socket", h.Socket, "ls")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	want := "lodge: only root may talk to lodged\nhint: Run the same command as root, with sudo.\n"
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitFailed || stderr.String() != want {
		t.Errorf("%v: %s", err, stderr.String())
	}
}

// open lets everybody through a directory of t.TempDir and its parent.
func open(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestParseCopy(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.txt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	tests := []struct {
		src, dst string
		want     copyJob
		bad      bool
	}{
		{src: file, dst: "s3://b/k", want: copyJob{true, "b", "k", file}},
		{src: file, dst: "s3://b", want: copyJob{true, "b", "f.txt", file}},
		{src: file, dst: "s3://b/dir/", want: copyJob{true, "b", "dir/f.txt", file}},
		{src: "s3://b/k", dst: "-", want: copyJob{false, "b", "k", "-"}},
		{src: "-", dst: "b/k", want: copyJob{true, "b", "k", "-"}},
		{src: "f.txt", dst: "b/k", want: copyJob{true, "b", "k", "f.txt"}},
		{src: "b/k/l", dst: "./x", want: copyJob{false, "b", "k/l", "./x"}},
		{src: "-", dst: "s3://b/", bad: true},
		{src: "a/b", dst: "c/d", bad: true},
		{src: "s3://a/b", dst: "s3://c/d", bad: true},
		{src: "./a", dst: "./b", bad: true},
		{src: "s3://b", dst: "./x", bad: true},
		{src: "s3://", dst: "./x", bad: true},
		{src: "s3:///k", dst: "./x", bad: true},
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
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"} {
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

// Ctrl-C while a VM is being made takes it away again, says so, and exits as shells expect.
func TestInterrupted(t *testing.T) {
	h := controltest.Start(t)
	begun := h.Stick()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	var stderr bytes.Buffer
	err := run(ctx, []string{"--socket", h.Socket, "new", "hello"}, strings.NewReader(""), io.Discard, &stderr)
	if exitCode(err) != exitInterrupt || !strings.HasSuffix(stderr.String(), "lodge: interrupted\n") {
		t.Errorf("exit %d: %s", exitCode(err), stderr.String())
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(h.Directory.All()) > 0 {
		<-tick.C
	}
}

// What is typed reaches the console, what it says comes back, and Ctrl-] leaves.
func TestConsole(t *testing.T) {
	h := controltest.Start(t)
	h.Add(t, "hello")
	stdin, keys := io.Pipe()
	screen, stdout := io.Pipe()
	left := make(chan error, 1)
	go func() {
		left <- run(t.Context(), []string{"--socket", h.Socket, "console", "hello"}, stdin, stdout, io.Discard)
	}()
	for _, step := range []struct{ said, typed string }{{"login: ", "root"}, {"ROOT", "\x1d"}} {
		said := make([]byte, len(step.said))
		if _, err := io.ReadFull(screen, said); err != nil || string(said) != step.said {
			t.Fatalf("%q, %v", said, err)
		}
		if _, err := io.WriteString(keys, step.typed); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-left; err != nil {
		t.Error(err)
	}
}
