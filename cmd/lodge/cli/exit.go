package cli

import (
	"context"
	"errors"

	"lodge/gateway"
	"lodge/gateway/control"
)

// The exit codes, except those of a remote command.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
	exitInterrupt  = 130 // 128 + SIGINT, as in shells
)

// ExitCode returns the exit code for an error of Run.
func ExitCode(err error) int {
	if remote, ok := errors.AsType[remoteExit](err); ok {
		return int(remote)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return exitInterrupt
	case errors.Is(err, control.ErrNotRunning):
		return exitNotRunning
	case gateway.KindOf(err) == gateway.KindInvalid:
		return exitUsage
	default:
		return exitFailed
	}
}
