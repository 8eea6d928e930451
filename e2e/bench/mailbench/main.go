// Command mailbench compares the mail side of Lodge with Debian's Postfix, which delivers to Maildirs, and
// measures what else its goals are about. It prints a table.
//
// Lodge is the real mail.Server in a process of its own. Both get the same messages from the same senders:
// 16 sessions that stay open and send to four VMs, without waiting for the replies in between (PIPELINING). They take
// turns within each round, so that other load on the host falls on both. Look at the ratios, and at the CPU
// time: on a machine that others use too, that varies less than the duration.
//
// It needs root and namespaces of its own, which the Makefile gives it: it takes addresses, and adds users.
//
//	make bench-mail
//	make bench-mail BENCHFLAGS=-short    # smaller numbers, for a first look
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-mail:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "lodged" {
		return serveLodged(ctx, args[1:])
	}
	flags := flag.NewFlagSet("bench-mail", flag.ContinueOnError)
	short := flags.Bool("short", false, "smaller numbers, for a first look")
	only := flags.String("only", "", "measure these alone, separated by commas: "+strings.Join(names(), ", "))
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &bench{sizes: full()}
	if *short {
		b.sizes = small()
	}
	// It lies on a disk, as mail does, and users of other programs pass through.
	var err error
	if b.dir, err = os.MkdirTemp("/var/tmp", "bench-mail-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)                                                                                  //nolint:errcheck // what is left is in a directory of temporary files
	if err := errors.Join(os.Chmod(b.dir, 0o755), command(ctx, "ip", "link", "set", "lo", "up")); err != nil { //nolint:gosec // as above
		return err
	}
	if err := b.addUsers(); err != nil {
		return err
	}
	for _, m := range measurements() {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), m.name) {
			continue
		}
		if err := m.run(ctx, b); err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	return nil
}

// bench is one run.
type bench struct {
	sizes

	dir  string
	runs int // of lodged so far: each has its own directory
}

// sizes are how much is measured.
type sizes struct {
	rounds         int
	small, large   int // messages of a round, of 4 KiB and of 64
	crowded        int // messages in the box that clients watch
	perVM, million int // messages in a box
	pushes, copies int // messages, one after the other
	backlog        int // messages that wait
}

func full() sizes {
	return sizes{rounds: 3, small: 6000, large: 2000, crowded: 100_000, perVM: 10_000, million: 1_000_000, pushes: 300, copies: 300, backlog: 3000}
}

func small() sizes {
	return sizes{rounds: 1, small: 1000, large: 300, crowded: 20_000, perVM: 1000, million: 100_000, pushes: 50, copies: 50, backlog: 500}
}

// measurement prints some lines of the table.
type measurement struct {
	name string
	run  func(context.Context, *bench) error
}

func measurements() []measurement {
	return []measurement{
		{"accept", accept},
		{"verdicts", verdicts},
		{"idle", idle},
		{"push", push},
		{"start", start},
		{"million", million},
		{"guest", intoGuest},
		{"backlog", backlog},
	}
}

func names() (all []string) {
	for _, m := range measurements() {
		all = append(all, m.name)
	}
	return all
}

// line prints one line of the table: what was measured, its value, and the goal.
func line(name, value, goal string) {
	fmt.Printf("%-44s %-34s %s\n", name, value, goal)
}

// command runs a program that must succeed.
func command(ctx context.Context, args ...string) error {
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil { //nolint:gosec // of this package
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
