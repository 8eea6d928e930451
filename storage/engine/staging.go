package engine

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// A staged bucket is a directory that the first write to a bucket has made, for its temporary file.
// The bucket does not exist until a write has succeeded. The sticky bit marks the directory: mkdir(2)
// sets it, and one chmod(2) removes it, so that a crash leaves no bucket that nobody has made.
const stagedMode = fs.ModeSticky | 0o700

func isStaged(bucket fs.FileInfo) bool { return bucket.Mode()&fs.ModeSticky != 0 }

// staging counts the writes in progress to buckets that are or were staged: the last one to end
// removes what is still staged.
type staging struct {
	mu     sync.Mutex     // locked while a directory of a bucket is made, marked, or removed as staged
	writes map[string]int // by the bucket's path
}

// beginWrite stages a bucket, unless it exists. Call end when all work on the write has ended.
func (b *backend) beginWrite(p place) (end func(), err error) {
	if info, err := os.Lstat(p.path); err == nil && !isStaged(info) {
		return func() {}, nil
	}
	b.staging.mu.Lock()
	defer b.staging.mu.Unlock()
	if err := makeDir(p.path, stagedMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	b.staging.writes[p.path]++
	return func() { b.endWrite(p) }, nil
}

func (b *backend) endWrite(p place) {
	b.staging.mu.Lock()
	defer b.staging.mu.Unlock()
	if b.staging.writes[p.path]--; b.staging.writes[p.path] > 0 {
		return
	}
	delete(b.staging.writes, p.path)
	if info, err := os.Lstat(p.path); err != nil || !isStaged(info) {
		return // it exists, or was deleted
	}
	if err := os.RemoveAll(p.path); err != nil { // the next start removes it
		b.log.Error("staged bucket not removed", slog.String("vm_id", p.id.String()), slog.String("bucket", p.bucket), slog.Any("err", err))
	}
}

// commit makes a staged bucket exist, and reports whether it did: false if it exists. The caller
// syncs it.
func (b *backend) commit(p place) (bool, error) {
	if info, err := b.lstat(p); err != nil || !isStaged(info) {
		return false, err
	}
	b.staging.mu.Lock()
	defer b.staging.mu.Unlock()
	return b.commitLocked(p)
}

func (b *backend) commitLocked(p place) (bool, error) {
	info, err := b.lstat(p)
	if err != nil || !isStaged(info) {
		return false, err
	}
	return true, os.Chmod(p.path, 0o700)
}

// makeBucket makes a bucket, synced, and reports whether it did: false if it exists.
func (b *backend) makeBucket(p place) (bool, error) {
	made, err := b.makeUnsynced(p)
	if err != nil || !made {
		return false, err
	}
	return true, b.sync(p.path)
}

func (b *backend) makeUnsynced(p place) (bool, error) {
	b.staging.mu.Lock()
	defer b.staging.mu.Unlock()
	err := makeDir(p.path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return b.commitLocked(p)
	}
	return err == nil, err
}

// makeDir makes a bucket's directory, and that of a VM that has none yet.
func makeDir(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.Mkdir(path, mode)
		}
	}
	return err
}
