// Package disk makes the root disks of VMs, and copies of kernels beside them.
//
// A disk begins as a copy of an image's disk, and shares the image's blocks where the file system
// supports that; or as a qcow2 overlay of a template's disk. This package never looks into a file
// system, never changes an image and never changes a disk that has its final name.
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
)

// Create makes a raw disk of gib GiB at path, which must not exist, from the image's disk at base.
// Where the file system supports it, the two share their blocks until the guest writes
// (ioctl_ficlone(2)); elsewhere Create copies all but the holes. The disk is complete and synced,
// or absent. Errors: KindInvalid when the image does not fit in gib; ENOSPC is in the chain when
// the host's disk is full.
func Create(ctx context.Context, path, base string, gib int) error {
	size := int64(gib) << 30
	err := derive(path, base, 0o600, func(to, from *os.File, fromSize int64) error {
		if err := checkSize(gib, fromSize); err != nil {
			return err
		}
		return errors.Join(fill(ctx, to, from, fromSize), to.Truncate(size), growPartition(to, size))
	})
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return nil
}

// Copy makes a copy of the file at base, such as a kernel, at path, which must not exist. Like
// Create, it shares the blocks where it can, and the copy is complete and synced, or absent.
func Copy(ctx context.Context, path, base string, mode fs.FileMode) error {
	err := derive(path, base, mode, func(to, from *os.File, size int64) error {
		return errors.Join(fill(ctx, to, from, size), to.Truncate(size)) // it may end in a hole
	})
	if err != nil {
		return fmt.Errorf("copy file: %w", err)
	}
	return nil
}

// derive makes the file at path, with this mode and synced. write gets it empty, and the file at base
// with its size.
func derive(path, base string, mode fs.FileMode, write func(to, from *os.File, size int64) error) error {
	from, err := os.Open(base)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was only read
	info, err := from.Stat()
	if err != nil {
		return err
	}
	draft := path + ".new"
	if err := os.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) { // left by a crash
		return err
	}
	to, err := os.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(write(to, from, info.Size()), to.Chmod(mode), to.Sync(), to.Close())
	if err == nil {
		err = renameNew(draft, path)
	}
	if err != nil {
		_ = os.Remove(draft) // the error above matters more
	}
	return err
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
