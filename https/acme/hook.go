package acme

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	hookLimit     = 2 * time.Minute
	maxHookOutput = 1 << 10 // bytes kept for the error
	hookKillLimit = 5 * time.Second
)

// Hook changes records by a program: "PROGRAM present FQDN VALUE" adds one and ends when the
// authority can see it, "PROGRAM cleanup FQDN VALUE" removes it. It implements Records.
type Hook struct {
	Program string        // absolute path
	Limit   time.Duration // how long one call may take; 0 means 2 min
}

// Present implements Records.
func (h *Hook) Present(ctx context.Context, fqdn, value string) error {
	return h.run(ctx, "present", fqdn, value)
}

// Remove implements Records.
func (h *Hook) Remove(ctx context.Context, fqdn, value string) error {
	return h.run(ctx, "cleanup", fqdn, value)
}

func (h *Hook) run(ctx context.Context, args ...string) error {
	limit := h.Limit
	if limit == 0 {
		limit = hookLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out tail
	cmd := exec.CommandContext(ctx, h.Program, args...) //nolint:gosec // the operator's program; the name and the value have no special characters
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its children too
	cmd.WaitDelay = hookKillLimit
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("run %s %s: %w: %s", h.Program, args[0], err, strings.TrimSpace(string(out.kept)))
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - maxHookOutput; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(p), nil
}
