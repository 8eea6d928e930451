package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/versity/versitygw/backend/posix"

	"lodge/gateway"
)

// remove removes all that a VM has stored; see Engine.Remove.
func (b *backend) remove(id gateway.ID) error {
	err := b.discard(b.vmPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// recover completes what a crash interrupted, before the first request.
func (b *backend) recover() error {
	if err := emptyDir(filepath.Join(b.dir, removingDir)); err != nil {
		return err
	}
	buckets, err := filepath.Glob(filepath.Join(globEscape(b.dir), vmsDir, "*", "*"))
	if err != nil {
		return fmt.Errorf("find buckets: %w", err)
	}
	for _, bucket := range buckets {
		if err := recoverBucket(bucket); err != nil {
			return fmt.Errorf("recover %s: %w", bucket, err)
		}
	}
	return nil
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read %s: %w", dir, err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("finish removal: %w", err)
		}
	}
	return nil
}

// recoverBucket removes a staged bucket: no write to it was acknowledged. In others it removes
// temporary files, and gives uploads that were being completed their name back, so that a client can
// complete them again: versitygw would answer 200 without an object.
func recoverBucket(bucket string) error {
	info, err := os.Lstat(bucket)
	if err != nil {
		return fmt.Errorf("look at bucket: %w", err)
	}
	if isStaged(info) {
		return os.RemoveAll(bucket)
	}
	if err := removeFiles(filepath.Join(bucket, posix.MetaTmpDir)); err != nil {
		return err
	}
	keys, err := os.ReadDir(filepath.Join(bucket, posix.MetaTmpMultipartDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range keys {
		dir := filepath.Join(bucket, posix.MetaTmpMultipartDir, key.Name())
		if err := errors.Join(removeFiles(dir), reopenUploads(dir)); err != nil {
			return err
		}
		_ = os.Remove(dir) // when it is empty; else it stays
	}
	return nil
}

func reopenUploads(dir string) error {
	uploads, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, u := range uploads {
		id, _, being := strings.Cut(u.Name(), ".")
		if !being || !strings.HasSuffix(u.Name(), ".inprogress") {
			continue
		}
		if err := os.Rename(filepath.Join(dir, u.Name()), filepath.Join(dir, id)); err != nil {
			return err
		}
	}
	return nil
}

// removeFiles deletes the plain files in dir, if there is one.
func removeFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
