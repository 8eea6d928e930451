package cli

import (
	"context"
	"errors"

	"lodge/gateway"
	"lodge/gateway/control"
)

// The exit codes that are not a remote command's.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
	exitInterrupt  = 130 // 128 + SIGINT, as shells say it
)

// ExitCode is the one table from errors to exit codes.
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
