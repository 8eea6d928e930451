// Command web compares the web side of Lodge with nginx, HAProxy and Caddy, and prints a table.
//
// All of them terminate TLS in front of the same app, one after the other in each round. Lodge is
// the real https.Server in a process of its own, with a session on a private port. Of the cost, the
// table has the CPU time: on a machine that others use too, it varies less than the duration.
//
//	make bench-https
//	make bench-https BENCHFLAGS=-short    # one short round
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-https:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) >= 3 && args[0] == "lodged" {
		return serveLodged(ctx, args[1], args[2], len(args) == 4 && args[3] == "public")
	}
	flags := flag.NewFlagSet("bench-https", flag.ContinueOnError)
	short := flags.Bool("short", false, "one short round, for a first look")
	only := flags.String("only", "", "measure this alone")
	caddy := flags.String("caddy", "caddy", "the caddy program")
	if err := flags.Parse(args); err != nil {
		return err
	}
	rounds, each, conns := 4, 2*time.Second, 1000
	if *short {
		rounds, each, conns = 1, 800*time.Millisecond, 250
	}
	dir, err := os.MkdirTemp("", "bench-https-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left is in the directory of temporary files
	b := &bench{dir: dir, caddy: *caddy}
	defer b.stop()
	if err := b.start(ctx); err != nil {
		return err
	}
	var results []result
	for _, m := range measurements(each, conns) {
		if *only != "" && *only != m.name {
			continue
		}
		values, err := b.measure(ctx, m, rounds)
		if err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
		results = append(results, result{m, values})
	}
	b.print(os.Stdout, results)
	return nil
}
