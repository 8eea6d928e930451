package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
)

// callLimit ends a command that hangs. The longest is the boot of a VM under TCG in parallel with
// others.
const callLimit = 5 * time.Minute

// Result is how a command ended.
type Result struct {
	Code   int
	Stdout string
	Stderr string
}

// Text is the output of both streams.
func (r Result) Text() string { return r.Stdout + r.Stderr }

// Lodge runs a verb that must succeed, and returns its stdout.
func (h *Host) Lodge(t testing.TB, args ...string) string {
	t.Helper()
	r := h.TryLodge(t, args...)
	if r.Code != 0 {
		t.Fatalf("lodge %s ended with %d:\n%s", strings.Join(args, " "), r.Code, r.Text())
	}
	return r.Stdout
}

// TryLodge runs a verb that may fail.
func (h *Host) TryLodge(t testing.TB, args ...string) Result {
	t.Helper()
	return h.tryLodge(t, nil, args...)
}

func (h *Host) tryLodge(t testing.TB, stdin io.Reader, args ...string) Result {
	t.Helper()
	args = append([]string{"--socket", gateway.ControlSocket(h.RunDir)}, args...)
	return h.Run(t, stdin, filepath.Join(Programs(t, h.Race), "lodge"), args...)
}

// JSON runs a verb with --json and decodes its answer.
func JSON[T any](t testing.TB, h *Host, args ...string) T {
	t.Helper()
	var v T
	out := h.Lodge(t, append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("lodge %s: %v in\n%s", strings.Join(args, " "), err, out)
	}
	return v
}

// Run runs any program with a clean environment, as the Host's user.
func (h *Host) Run(t testing.TB, stdin io.Reader, name string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callLimit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = h.env()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ended, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || ended.ExitCode() < 0) {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.String(), Stderr: stderr.String()}
}

// env has no settings of the machine, such as the path of a CA bundle.
func (h *Host) env() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.Home, "LANG=C.UTF-8", "TMPDIR=" + os.TempDir()}
}

// Eventually repeats check until it returns no error, at most for limit.
func Eventually(t testing.TB, what string, limit time.Duration, ask func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s: %v", limit, what, err)
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, t.Context().Err())
		}
	}
}
