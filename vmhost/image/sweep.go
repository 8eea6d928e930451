package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// Sweep removes the files of images that were replaced, unless their disk is in use as the base of
// others. It removes none of an image that is being built, or whose manifest it cannot read, and
// none from a read-only file system.
func Sweep(dir string, inUse func(disk string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	contentNamed := regexp.MustCompile(`^(.+)-[0-9a-f]{16}\.(raw|vmlinuz|initrd)$`)
	old := map[string][]string{} // by the image's name
	for _, e := range entries {
		if match := contentNamed.FindStringSubmatch(e.Name()); match != nil {
			old[match[1]] = append(old[match[1]], e.Name())
		}
	}
	var errs []error
	for name, files := range old {
		errs = append(errs, sweepImage(dir, name, files, inUse))
	}
	return errors.Join(errs...)
}

// sweepImage is Sweep for the files of one image.
func sweepImage(dir, name string, files []string, inUse func(disk string) bool) error {
	lock, err := lockImage(dir, name)
	if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EROFS) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing was written
	m, err := readManifest(filepath.Join(dir, name+manifestExt))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read manifest of image %s: %w", name, err)
	}
	var errs []error
	for _, file := range files {
		disk := filepath.Join(dir, strings.TrimSuffix(file, filepath.Ext(file))+diskExt)
		if file == m.Disk.File || file == m.Kernel.File || file == m.Initrd.File || inUse(disk) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove replaced image: %w", err))
		}
	}
	return errors.Join(errs...)
}

// removeNamed removes the files of an older build that are named by the image alone: no disk is
// over them.
func removeNamed(dir, name string, old manifest) error {
	for _, file := range []string{old.Disk.File, old.Kernel.File, old.Initrd.File} {
		if !strings.HasPrefix(file, name+".") || file != filepath.Base(file) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove replaced image: %w", err)
		}
	}
	return nil
}

// lockImage takes the lock of an image's builds. EWOULDBLOCK is in the chain of the error while
// another holds it.
func lockImage(dir, name string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "."+name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock image: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close() // nothing was locked
		return nil, fmt.Errorf("lock image: %w", err)
	}
	return lock, nil
}
