// Command lodge is the command line of Lodge; package cli has its verbs and its exit codes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"lodge/cmd/lodge/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := cli.Run(ctx, nil, os.Args[1:], cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(cli.ExitCode(err))
}
