// Command lodged is the host daemon: it provides HTTPS, mail and S3 for the VMs of this host, and
// keeps them running.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"lodge/gateway"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	explain(os.Stderr, err)
	os.Exit(1) //nolint:gocritic // the process ends, so the deferred stop is not needed
}

// explain writes the error and its hint.
func explain(w io.Writer, err error) {
	_, _ = fmt.Fprintf(w, "lodged: %v\n", err) // there is no other place to report to
	if e, ok := errors.AsType[*gateway.Error](err); ok && e.Hint != "" {
		_, _ = fmt.Fprintf(w, "lodged: %s\n", e.Hint) // as above
	}
}
