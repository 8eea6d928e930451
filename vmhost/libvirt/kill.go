package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
)

// pidDir is where libvirtd writes the process ids of its QEMUs.
const pidDir = "/run/libvirt/qemu"

// How long Kill waits for the end of a process, and how often it looks.
const (
	endLimit = 2 * time.Second
	endEvery = 2 * time.Millisecond
)

// Kill is Destroy for a VM whose QEMU has nothing more to write that anybody will read: all layers of its
// disk are removed, or the top one is, and Pivot, for which QEMU flushes those below, has made that. Kill
// ends QEMU first, since Destroy looks only every 200 ms whether it has ended.
func (c *Client) Kill(ctx context.Context, id gateway.ID) error {
	if _, err := c.Ping(ctx); err != nil { // the VM could not be started again
		return err
	}
	if p, err := qemuOf(DomainName(id)); err == nil {
		_ = endProcess(ctx, p) // Destroy ends what is left
		_ = p.Release()        // it is no child: there is nothing to wait for
	}
	return c.Destroy(ctx, id)
}

// qemuOf finds the process of a running domain.
func qemuOf(name string) (*os.Process, error) {
	text, err := os.ReadFile(filepath.Join(pidDir, name+".pid"))
	if err != nil {
		return nil, fmt.Errorf("find QEMU: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("find QEMU: %w", err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("find QEMU: %w", err)
	}
	// The file may be older than the process: the handle is open now, so the process stays the same.
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(args), "\x00guest="+name+",") {
		return nil, errors.Join(fmt.Errorf("process %d is not the QEMU of %s", pid, name), err, p.Release())
	}
	return p, nil
}

// endProcess kills a process and waits until it has ended, at most endLimit.
func endProcess(ctx context.Context, p *os.Process) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	for {
		switch err := p.Kill(); {
		case errors.Is(err, os.ErrProcessDone):
			return nil
		case err != nil:
			return fmt.Errorf("kill QEMU: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill QEMU: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
