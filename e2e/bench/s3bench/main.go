// Command s3bench compares the storage of Lodge with other S3 servers, and with nginx for reads, and measures what else
// its goals are about. It prints a table.
//
// Lodge is the real storage.Server in a process of its own, at a VM's tap: durable, with the VM's issued keys, whose
// signatures it verifies, a quota, and checksums. MinIO and versitygw are used where they are found; MinIO syncs, versitygw
// does not. All get the same signed requests with the hash of the body, from 16 connections that stay open. They take turns
// within each round, so that other load on the host falls on all. Look at the ratios: they are of medians.
//
//	make bench-s3
//	make bench-s3 BENCHFLAGS="-seconds 20 -rounds 5 -objects 1000000"    # long enough for compactions
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench-s3:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	dir              string
	rounds           int
	length           time.Duration // of a round of one server
	objects          int           // of the bucket that is listed
	minio, versitygw string        // programs
	only             []string
}

func run(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == "lodged" {
		return serveLodged(ctx, args[1])
	}
	b := &bench{}
	flags := flag.NewFlagSet("bench-s3", flag.ContinueOnError)
	seconds := flags.Int("seconds", 2, "of each server in each round")
	flags.IntVar(&b.rounds, "rounds", 3, "of which the medians are taken")
	flags.IntVar(&b.objects, "objects", 50_000, "in the bucket that is listed")
	flags.StringVar(&b.minio, "minio", "minio", "the program of MinIO")
	flags.StringVar(&b.versitygw, "versitygw", "versitygw", "the program of versitygw")
	only := flags.String("only", "", "measure these alone, separated by commas: "+strings.Join(names(), ", "))
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *seconds < 1 || b.rounds < 1 || b.objects < 5*pageKeys {
		return fmt.Errorf("at least one second, one round and %d objects are needed", 5*pageKeys)
	}
	b.length = time.Duration(*seconds) * time.Second
	if *only != "" {
		b.only = strings.Split(*only, ",")
	}
	var err error
	if b.dir, err = os.MkdirTemp("/var/tmp", "bench-s3-"); err != nil { // on a disk, as objects are
		return err
	}
	defer os.RemoveAll(b.dir) //nolint:errcheck // what is left is in a directory of temporary files
	for _, m := range measurements() {
		if len(b.only) > 0 && !slices.Contains(b.only, m.name) {
			continue
		}
		if err := m.run(ctx, b); err != nil {
			return fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	return nil
}

// measurement prints some lines of the table.
type measurement struct {
	name string
	run  func(context.Context, *bench) error
}

func measurements() []measurement {
	return []measurement{{"load", load}, {"many", many}}
}

func names() (all []string) {
	for _, m := range measurements() {
		all = append(all, m.name)
	}
	return all
}

// line prints one line of the table: what was measured, its value, and the goal.
func line(name, value, goal string) {
	fmt.Printf("%-26s %-74s %s\n", name, value, goal)
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

func middle[T float64 | time.Duration](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}
