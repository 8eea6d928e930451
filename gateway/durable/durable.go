// Package durable writes files that survive a crash of the process or the host: a file is complete or absent, and on
// disk when the call returns.
//
// It never retries and never hides an error of fsync(2): after one, what the disk holds is unknown.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// TempPattern names unfinished files. What a crash leaves behind has this prefix and may be removed at start.
const TempPattern = ".new-*"

// WriteFile replaces file by one with these bytes and this mode, whatever the umask. Readers see the old content or the new,
// never a part. When it returns nil, the file and its directory entry are synced. An error leaves the old file.
func WriteFile(file string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), TempPattern)
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // renamed already when all went well
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return Rename(f.Name(), file)
}

// Rename moves a file that is synced already, replacing what has the new name, and syncs the directory of the new name.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err // an *os.LinkError names both
	}
	return Sync(filepath.Dir(to))
}

// Sync brings a file, or the entries of a directory, to disk.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// IsFull reports whether err is for want of space, inodes or quota on a disk.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
