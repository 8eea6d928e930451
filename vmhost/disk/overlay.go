package disk

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"lodge/gateway"
)

// Overlay is a qcow2 disk over another one, which must stay and never change.
type Overlay struct {
	Base   string             // absolute path of the disk below
	Format gateway.DiskFormat // of that
	Bytes  int64              // its own size
	Grow   bool               // extend the partition of a Lodge image to its end; Base is raw
}

// Create makes the overlay at path, which must not exist. It has the content of the base until the
// guest writes. It is complete and synced, or absent. ENOSPC is in the chain of the error when the
// host's disk is full.
func (o Overlay) Create(ctx context.Context, path string) error {
	err := publish(path, 0o600, func(draft string) error {
		if _, err := os.Stat(o.Base); err != nil {
			return err
		}
		if err := run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", string(o.Format), "-b", o.Base, draft, strconv.FormatInt(o.Bytes, 10)); err != nil || !o.Grow {
			return err
		}
		writes, err := growPartition(o.Base, o.Bytes)
		if err != nil || len(writes) == 0 {
			return err
		}
		args := []string{"-f", "qcow2"}
		for _, w := range writes {
			args = append(args, "-c", w)
		}
		return run(ctx, "qemu-io", append(args, draft)...)
	})
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// Part is one of the disks in a chain.
type Part struct {
	File   string // its absolute path
	Format gateway.DiskFormat
}

// Flatten makes a raw disk at path, which must not exist, with the content of a chain, whose uppermost
// disk is the first. What a qcow2 header names below a disk does not count: QEMU changes it before all
// that it has copied from there is on disk. Nobody may write to the chain meanwhile. The disk is complete
// and synced, or absent. Errors as those of Overlay.Create.
func Flatten(ctx context.Context, path string, chain []Part) error {
	err := publish(path, 0o600, func(draft string) error {
		from, err := ChainSpec(chain)
		if err != nil {
			return err
		}
		return run(ctx, "qemu-img", "convert", "-q", "-O", "raw", from, draft)
	})
	if err != nil {
		return fmt.Errorf("flatten disk: %w", err)
	}
	return nil
}

// ChainSpec names a chain, which has a raw end, in QEMU's syntax of json: files (qemu(1)).
func ChainSpec(chain []Part) (string, error) {
	type node struct {
		Driver  string `json:"driver"`
		File    any    `json:"file"`
		Backing *node  `json:"backing,omitempty"`
	}
	var below *node
	for _, p := range slices.Backward(chain) {
		below = &node{string(p.Format), map[string]string{"driver": "file", "filename": p.File}, below}
	}
	text, err := json.Marshal(below)
	return "json:" + string(text), err
}

// run runs a program of QEMU.
func run(ctx context.Context, program string, args ...string) error {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput() //nolint:gosec // paths of lodged
	if err != nil {
		return cmp.Or(ctx.Err(), explain(string(out), err))
	}
	return nil
}

// explain returns the error for what qemu-img has written, or err if that is nothing.
func explain(out string, err error) error {
	text := strings.TrimSpace(out)
	switch {
	case text == "":
		return err
	case strings.HasSuffix(text, "No space left on device"):
		return fmt.Errorf("%s: %w", text, syscall.ENOSPC)
	default:
		return errors.New(text)
	}
}

// CopyTemp is Copy for a file that no crash has to survive: it is not synced, and replaces what is
// at to. After an error there is none.
func CopyTemp(ctx context.Context, to, from string) error {
	if err := copyTo(ctx, to, from); err != nil {
		_ = os.Remove(to) // the error above matters more
		return fmt.Errorf("copy file: %w", err)
	}
	return nil
}

// Base returns the path of the disk below a qcow2 one, or an empty string
// (https://qemu-project.gitlab.io/qemu/interop/qcow2.html).
func Base(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read base of disk: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	header := make([]byte, 20)
	if _, err := f.ReadAt(header, 0); err != nil {
		return "", fmt.Errorf("read base of disk: %w", err)
	}
	const maxName = 1023
	at, length := binary.BigEndian.Uint64(header[8:]), binary.BigEndian.Uint32(header[16:])
	if string(header[:4]) != "QFI\xfb" || length > maxName || at > 1<<20 {
		return "", errors.New("read base of disk: not a qcow2 disk")
	}
	name := make([]byte, length)
	if _, err := f.ReadAt(name, int64(at)); err != nil { //nolint:gosec // limited above
		return "", fmt.Errorf("read base of disk: %w", err)
	}
	return string(name), nil
}
