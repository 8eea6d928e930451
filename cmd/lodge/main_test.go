package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io/fs"
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

// TestScripts runs the real main against a real control server, a fresh one per script; $SOCK is
// its socket.
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
					env.Setenv("GORACE", os.Getenv("GORACE")) // make unit shortens the wait at each exit
					env.Setenv("TMPDIR", env.WorkDir)
					return nil
				},
				Cmds: commands(t, h),
			})
		})
	}
}

type command = func(ts *testscript.TestScript, neg bool, args []string)

// commands are the scripts' commands for the fakes, and for the last command's output.
func commands(t *testing.T, h *controltest.Host) map[string]command {
	t.Helper()
	var objectsDir string
	return map[string]command{
		// full fills the host's disk.
		"full": func(*testscript.TestScript, bool, []string) { h.Fill() },
		// spoil NAME makes the VM's mailbox one that cannot be read.
		"spoil": func(_ *testscript.TestScript, _ bool, args []string) { h.Spoil(args[0]) },
		// listening starts a listener in every VM.
		"listening": func(*testscript.TestScript, bool, []string) { h.Listen() },
		// ask NAME VM ADDRESS makes a request for port 8000, whose ID is $NAME.
		"ask": func(ts *testscript.TestScript, _ bool, args []string) {
			vm, _ := h.Directory.ByName(args[1])
			p, _ := h.People.ByMail(args[2])
			q, _, err := h.Requests.Add(t.Context(), gateway.AccessRequest{
				VM: vm.ID, Port: 8000, Host: "8000-" + vm.Name + ".lodge.localhost", Person: p.ID, Address: args[2], From: "192.0.2.1",
			})
			ts.Check(err)
			ts.Setenv(args[0], q.ID)
		},
		// objects starts the real S3 service, on the socket beside that of lodged.
		"objects": func(*testscript.TestScript, bool, []string) { objectsDir = serveObjects(t, h) },
		// harm cuts the files of all objects.
		"harm": func(ts *testscript.TestScript, _ bool, _ []string) {
			ts.Check(cutFiles(filepath.Join(objectsDir, "blobs")))
		},
		// random FILE BYTES makes a file of random bytes.
		"random": func(ts *testscript.TestScript, _ bool, args []string) {
			n, err := strconv.Atoi(args[1])
			ts.Check(err)
			text := make([]byte, n)
			_, _ = rand.Read(text) // crypto/rand.Read never fails
			ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
		},
		// receive VM QUEUE_ID FILE delivers a message.
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
		// address FILE sets $ADDRESS to the field of that name of a JSON object.
		"address": func(ts *testscript.TestScript, _ bool, args []string) {
			address, _ := objects(ts, strings.TrimSpace(ts.ReadFile(args[0])))[0]["address"].(string)
			ts.Setenv("ADDRESS", address)
		},
		// shape FILE KEY...: each line of the file (stdout, stderr) is a JSON object, or an array
		// of them, with exactly these keys.
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

// serveObjects runs the storage service until the test ends, and returns the directory of its
// objects.
func serveObjects(t *testing.T, h *controltest.Host) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s3, err := storage.New(storage.Config{
		Dir: dir, Keyring: h.Keyring, Directory: h.Directory, People: h.People, Outside: "s3.lodge.localhost", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(t.Context(), filepath.Join(filepath.Dir(h.Socket), "s3.sock"))
	if err != nil {
		t.Fatal(err)
	}
	h.UseObjects(s3)
	server := &http.Server{Handler: s3.HostHandler(), ReadHeaderTimeout: time.Minute}
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
	return dir
}

// cutFiles cuts each file below a directory to 5 bytes.
func cutFiles(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return os.Truncate(path, 5)
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

// TestNotRoot runs lodge as nobody: the error names who may use the socket, and how to become one
// of them.
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
	want := "lodge: only root and the members of group lodge may use lodged\nhint: Use sudo"
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 || !strings.HasPrefix(stderr.String(), want) {
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
