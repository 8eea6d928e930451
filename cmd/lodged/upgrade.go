package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lodge/gateway/sockets"
)

// errUpgrade is the cause of a context that SIGUSR2 has ended.
var errUpgrade = errors.New("replaced by SIGUSR2")

// checkLimit is how long the program on disk may take to check the configuration.
const checkLimit = 10 * time.Second

// untilUpgrade returns a context that ends with ctx, or with the cause errUpgrade after SIGUSR2 (as
// nginx and HAProxy name it). The daemon keeps running when the program on disk is broken or
// rejects the configuration.
func untilUpgrade(ctx context.Context, args []string, log *slog.Logger) context.Context {
	serving, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR2)
	go func() {
		defer cancel(nil)
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			}
			err := checkProgram(ctx, args)
			if err == nil {
				cancel(errUpgrade)
				return
			}
			log.Error("upgrade was refused", "err", err)
		}
	}()
	return serving
}

// checkProgram runs lodged -check of the program on disk.
func checkProgram(ctx context.Context, args []string) error {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, append(slices.Clone(args), "-check")...).CombinedOutput() //nolint:gosec // its own program
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// replace runs the program on disk in this process, with the sockets. The state must be closed: one
// process works on it at a time, and this one keeps its id.
func replace(args []string, kept *sockets.Set) error {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return fmt.Errorf("find program: %w", err)
	}
	passed, err := inherit(kept)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGUSR2) // its default would end the new program before that handles it
	env := append(os.Environ(), socketsVar+"="+passed)
	//nolint:gosec // its own program and arguments
	if err := syscall.Exec(path, append([]string{os.Args[0]}, args...), env); err != nil {
		return fmt.Errorf("run %s: %w", path, err)
	}
	return nil
}

// maxPassed is the longest value of socketsVar: execve(2) takes 128 KiB of each variable, enough for the
// sockets of 1,000 VMs. What does not fit is opened anew.
const maxPassed = 128<<10 - len(socketsVar+"=") - 1

// inherit makes execve(2) keep the sockets, and returns the value of socketsVar for them.
func inherit(kept *sockets.Set) (value string, err error) {
	last := ""
	kept.Each(func(name string, fd int) {
		one := fmt.Sprintf(" %s=%d", name, fd)
		if name == last {
			one = fmt.Sprintf(",%d", fd)
		}
		if err != nil || len(value)+len(one) > maxPassed {
			return
		}
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil { //nolint:gosec // a descriptor
			err = fmt.Errorf("pass on socket %s: %w", name, err)
		}
		value, last = value+one, name
	})
	return value, err
}
