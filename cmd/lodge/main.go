// Command lodge is the command line of Lodge. It asks lodged for everything but images, which it builds itself.
//
// Exit codes: 0 done; 1 failed; 2 the command, or a value in it, is wrong, and the same again will fail again; 3 lodged is
// not running; 130 interrupted. lodge ssh exits as the remote command did (255: no connection).
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"lodge/gateway"
	"lodge/gateway/control"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err))
}

// The exit codes that are not a remote command's.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
	exitInterrupt  = 130 // 128 + SIGINT, as shells say it
)

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
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
