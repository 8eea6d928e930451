package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"lodge/gateway/durable"
)

const (
	// ballastBytes is what the index can still write on a full disk. Deletes need it, and a flush that they
	// wait for.
	ballastBytes = 24 << 20
	// indexReserve is what bodies leave for the index besides, and lastReserve what all leave.
	indexReserve = 8 << 20
	lastReserve  = 4 << 20
)

// disk watches the free space. Pebble cannot survive a log that it cannot write, so a ballast file is removed
// when the disk is full: Pebble repeats the write, bodies are refused, and deletes go on for a while.
type disk struct {
	dir   string
	small bool        // less than 4 times the ballast in all: it has none
	gone  atomic.Bool // there is no ballast
}

func openDisk(dir string) (*disk, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	d := &disk{dir: dir, small: st.Blocks*uint64(st.Bsize) < 4*ballastBytes} // not negative
	return d, d.fill()
}

func (d *disk) ballast() string { return filepath.Join(d.dir, "ballast") }

// fs is the index's file system.
func (d *disk) fs(below vfs.FS) vfs.FS {
	return vfs.OnDiskFull(below, func() {
		d.gone.Store(true)
		_ = os.Remove(d.ballast()) // if that fails, the write fails again, and Pebble reports it
	})
}

// fill makes the ballast if it is not there, and there is room for it.
func (d *disk) fill() error {
	if info, err := os.Stat(d.ballast()); err == nil && info.Size() == ballastBytes {
		d.gone.Store(false)
		return nil
	}
	d.gone.Store(true)
	if free, _, err := durable.Free(d.dir); err != nil || d.small || free < 2*ballastBytes {
		return err
	}
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("make ballast: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, ballastBytes)
	if err = errors.Join(err, f.Close()); err == nil {
		d.gone.Store(false)
		return nil
	}
	err = errors.Join(err, os.Remove(d.ballast()))
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSPC) {
		return nil // it stays gone
	}
	return fmt.Errorf("make ballast: %w", err)
}

// room returns ErrFull unless n bytes fit beside the host's reserve and what the index needs.
func (d *disk) room(n int64) error {
	free, reserve, err := durable.Free(d.dir)
	if err != nil {
		return err
	}
	free -= n + reserve + indexReserve
	if !d.small && d.gone.Load() {
		if free -= 2 * ballastBytes; free >= 0 {
			if err := d.fill(); err != nil {
				return err
			}
		}
	}
	if free < 0 {
		return ErrFull
	}
	return nil
}

// last returns ErrFull when there is no ballast any more, and hardly room for n bytes of the index.
func (d *disk) last(n int) error {
	if !d.gone.Load() {
		return nil
	}
	free, _, err := durable.Free(d.dir)
	if err == nil && free < lastReserve+2*int64(n) {
		err = ErrFull
	}
	return err
}

// hasRoom returns ErrFull unless the disk has room for n bytes.
func (s *Store) hasRoom(n int64) error { return s.disk.room(n) }
