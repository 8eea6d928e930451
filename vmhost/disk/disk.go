// Package disk makes the files of root disks, and copies of kernels beside them.
//
// A disk is a qcow2 overlay of another one, or a copy, which shares its blocks with the original
// where the file system supports that. This package never looks into a file system, never changes
// an image and never changes a disk that has its final name.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"lodge/gateway/durable"
)

// Copy makes a copy of the file at base, such as a kernel, at path, which must not exist. Where the
// file system supports it, the two share their blocks (ioctl_ficlone(2)); elsewhere Copy copies all
// but the holes. The copy is complete and synced, or absent. ENOSPC is in the chain of the error
// when the host's disk is full.
func Copy(ctx context.Context, path, base string, mode fs.FileMode) error {
	err := publish(path, mode, func(draft string) error { return copyTo(ctx, draft, base) })
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	return nil
}

// publish makes the file at path, which must not exist, with this mode and synced. write makes the
// draft.
func publish(path string, mode fs.FileMode, write func(draft string) error) error {
	draft := Draft(path)
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) { // left by a crash
		return err
	}
	err := write(draft)
	if err == nil {
		err = errors.Join(os.Chmod(draft, mode), durable.Sync(draft))
	}
	if err == nil {
		err = renameNew(draft, path)
	}
	if err != nil {
		_ = os.Remove(draft) // the error above matters more
	}
	return err
}

// copyTo makes a copy of the file at from, or replaces the one at to.
func copyTo(ctx context.Context, to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // it was only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(fill(ctx, out, in, info.Size()), out.Truncate(info.Size()), out.Close()) // it may end in a hole
}

// renameNew moves draft to path unless that exists.
func renameNew(draft, path string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, draft, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: draft, New: path, Err: err}
	}
	return nil
}

// fill gives to the content of from.
func fill(ctx context.Context, to, from *os.File, size int64) error {
	err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		return copyData(ctx, to, from, size)
	}
	if err != nil {
		return fmt.Errorf("share blocks: %w", err)
	}
	return nil
}

// copyStep is how much is copied between two checks of the context.
const copyStep = 64 << 20

// copyData copies what is not a hole (lseek(2), SEEK_DATA).
func copyData(ctx context.Context, to, from *os.File, size int64) error {
	for at := int64(0); at < size; {
		begin, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) { // a hole up to the end
			return nil
		}
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		end, err := from.Seek(begin, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find hole: %w", err)
		}
		for at = begin; at < end; at += copyStep {
			if err := ctx.Err(); err != nil {
				return err //nolint:wrapcheck // the caller gave up
			}
			if err := copyRange(to, from, at, min(copyStep, end-at)); err != nil {
				return err
			}
		}
		at = end
	}
	return nil
}

// copyRange copies n bytes at the same place in both. io.Copy has the kernel do it
// (copy_file_range(2)).
func copyRange(to, from *os.File, at, n int64) error {
	_, errFrom := from.Seek(at, io.SeekStart)
	_, errTo := to.Seek(at, io.SeekStart)
	if err := errors.Join(errFrom, errTo); err != nil {
		return fmt.Errorf("copy data: %w", err)
	}
	if _, err := io.CopyN(to, from, n); err != nil {
		return fmt.Errorf("copy data: %w", err)
	}
	return nil
}

// Draft is the name of the file at path while it is being made. A crash leaves it.
func Draft(path string) string { return path + ".new" }
