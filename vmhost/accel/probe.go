package accel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// probeKVM starts kernel under KVM, without a disk, and waits for its first line. silent means that
// neither that nor an error was seen within limit. An error means that ctx has ended.
func probeKVM(ctx context.Context, device, kernel string, limit time.Duration) (works, silent bool, reason string, err error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return false, false, fmt.Sprintf("%s cannot be opened: %v", device, errors.Unwrap(err)), nil
	}
	_ = f.Close() // nothing was written
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begun := time.Now()
	started, err := startsKernel(limited, kernel)
	switch {
	case ctx.Err() != nil:
		return false, false, "", fmt.Errorf("probe KVM: %w", ctx.Err())
	case started:
		return true, false, fmt.Sprintf("a guest kernel started under it in %d ms", time.Since(begun).Milliseconds()), nil
	case limited.Err() != nil:
		return false, true, fmt.Sprintf("%s exists, but a guest kernel wrote nothing under it for %s", device, limit), nil
	case err != nil:
		return false, false, fmt.Sprintf("%s exists, but QEMU could not use it: %v", device, err), nil
	default:
		return false, false, fmt.Sprintf("%s exists, but a guest kernel ended under it without output", device), nil
	}
}

// startsKernel runs kernel and reports whether it has written its first line. It ends QEMU as soon
// as it has, or when ctx ends.
func startsKernel(ctx context.Context, kernel string) (started bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stderr bytes.Buffer
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "pc", "-m", "256",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", kernel, "-append", "console=ttyS0 earlyprintk=ttyS0 panic=-1")
	qemu.Stderr = &stderr
	out, err := qemu.StdoutPipe()
	if err != nil {
		return false, fmt.Errorf("start qemu: %w", err)
	}
	if err := qemu.Start(); err != nil {
		return false, fmt.Errorf("start qemu: %w", err)
	}
	started = hasFirstLine(out)
	cancel()
	err = qemu.Wait()
	if stderr.Len() > 0 {
		err = errors.New(strings.TrimSpace(stderr.String()))
	}
	return started, err
}

// hasFirstLine reads until "Linux version", the first line of every Linux kernel, or the end; at
// most 1 MiB.
func hasFirstLine(r io.Reader) bool {
	want, seen := []byte("Linux version"), []byte(nil)
	r = io.LimitReader(r, 1<<20)
	for chunk := make([]byte, 4096); ; {
		n, err := r.Read(chunk)
		seen = append(seen, chunk[:n]...)
		if bytes.Contains(seen, want) {
			return true
		}
		if err != nil {
			return false
		}
	}
}
