package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/minio/crc64nvme"
	"golang.org/x/sys/unix"

	"lodge/gateway"
	"lodge/gateway/durable"
)

// chunkBytes is how much of a file one checksum is of: what a reader must read to be sure of a byte.
const chunkBytes = 1 << 20

// blobs are the files of large bodies.
type blobs struct {
	s    *Store
	mu   sync.Mutex
	free []uint64 // empty files in blobs/new, whose directory entries are synced

	datasync func(fd int) error // fdatasync(2); tests have others
}

// spareFiles is how many files share one sync of blobs/new.
const spareFiles = 16

func newBlobs(s *Store) *blobs { return &blobs{s: s, datasync: unix.Fdatasync} }

// take returns the id of an empty file in blobs/new, whose directory entry is synced.
func (b *blobs) take() (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.free) == 0 {
		if err := b.refill(); err != nil {
			return 0, err
		}
	}
	id := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	return id, nil
}

func (b *blobs) refill() (err error) {
	made := make([]uint64, 0, spareFiles)
	defer func() {
		if err != nil {
			err = errors.Join(err, b.removeNew(made))
		}
	}()
	for range spareFiles {
		id, err := b.s.ids.take()
		if err != nil {
			return err
		}
		f, err := os.OpenFile(b.newPath(id), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return full(fmt.Errorf("make blob: %w", err))
		}
		made = append(made, id)
		if err := f.Close(); err != nil {
			return full(fmt.Errorf("make blob: %w", err))
		}
	}
	if err := durable.Sync(b.s.path("blobs", "new")); err != nil {
		return full(err)
	}
	b.free = made
	return nil
}

// close removes the files that were not used.
func (b *blobs) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.removeNew(b.free)
	b.free = nil
	return err
}

// removeNew removes files of blobs/new.
func (b *blobs) removeNew(ids []uint64) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, os.Remove(b.newPath(id)))
	}
	return errors.Join(errs...)
}

func (b *blobs) newPath(id uint64) string { return b.s.path("blobs", "new", fmt.Sprintf("%016x", id)) }

func (b *blobs) finalPath(vm gateway.ID, id uint64) string {
	return b.s.path("blobs", vm.String(), fmt.Sprintf("%02x", byte(id)), fmt.Sprintf("%016x", id))
}

// place moves a committed file out of blobs/new. If that fails, readers find it there, and Open moves
// it.
func (b *blobs) place(vm gateway.ID, id uint64) {
	to := b.finalPath(vm, id)
	err := os.Rename(b.newPath(id), to)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.Rename(b.newPath(id), to))
	}
	if err != nil {
		b.s.log.Warn("blob not moved", "vm_id", vm.String(), "err", err)
	}
}

// open opens a committed file, wherever place has it.
func (b *blobs) open(vm gateway.ID, id uint64) (*os.File, error) {
	final := b.finalPath(vm, id)
	var f *os.File
	var err error
	for _, path := range []string{final, b.newPath(id), final} {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return nil, damaged("the file of a body is missing")
	}
	return f, err
}

// remove deletes a file; one that is gone is no error.
func (b *blobs) remove(vm gateway.ID, id uint64) error {
	for _, path := range []string{b.finalPath(vm, id), b.newPath(id)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// blob is a file that is being written.
type blob struct {
	file
	id     uint64
	f      *os.File
	crc    uint64
	filled int64 // of the last chunk

	datasync func(fd int) error
}

func (b *blobs) create() (*blob, error) {
	id, err := b.take()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(b.newPath(id), os.O_WRONLY, 0)
	if err != nil {
		return nil, full(fmt.Errorf("write blob: %w", err))
	}
	return &blob{id: id, f: f, datasync: b.datasync}, nil
}

func (w *blob) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.size += int64(n)
	for rest := p[:n]; len(rest) > 0; {
		now := rest[:min(int64(len(rest)), chunkBytes-w.filled)]
		rest = rest[len(now):]
		w.crc = crc64nvme.Update(w.crc, now)
		if w.filled += int64(len(now)); w.filled == chunkBytes {
			w.endChunk()
		}
	}
	return n, full(err)
}

func (w *blob) endChunk() {
	w.crcs = append(w.crcs, w.crc)
	w.crc, w.filled = 0, 0
}

// sync brings the file to disk and closes it.
func (w *blob) sync() error {
	if w.filled > 0 {
		w.endChunk()
	}
	if err := errors.Join(w.datasync(int(w.f.Fd())), w.f.Close()); err != nil {
		return full(fmt.Errorf("sync blob: %w", err))
	}
	return nil
}
