// Command lodged is the host daemon: it gives every VM of this host HTTPS, mail and S3, and keeps the VMs running.
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
	os.Exit(1) //nolint:gocritic // nothing is left that the deferred stop would do
}

// explain writes what went wrong and what to do next.
func explain(w io.Writer, err error) {
	_, _ = fmt.Fprintf(w, "lodged: %v\n", err) // stderr is all there is to complain to
	if e, ok := errors.AsType[*gateway.Error](err); ok && e.Hint != "" {
		_, _ = fmt.Fprintf(w, "lodged: %s\n", e.Hint) // as above
	}
}
