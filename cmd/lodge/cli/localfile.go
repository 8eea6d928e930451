package cli

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"lodge/gateway"
)

// writeFile writes a file, or into the device or FIFO of that name. It follows symbolic links.
func writeFile(to string, from io.Reader) (int64, error) {
	old, err := os.Stat(to) // by the kernel, which may refuse to follow a link (fs.protected_symlinks)
	switch {
	case err == nil && !old.Mode().IsRegular():
		return writeInto(to, from)
	case err == nil:
		to, err = filepath.EvalSymlinks(to)
	case errors.Is(err, fs.ErrNotExist):
		if _, dangling := os.Lstat(to); dangling == nil {
			return 0, gateway.Invalid("%s is a symbolic link to a file that does not exist", to)
		}
		err = nil
	}
	if err != nil {
		return 0, unwritable(err)
	}
	return replaceFile(to, old, from)
}

func unwritable(err error) error {
	return gateway.Invalid("cannot write the file: %v", err).Because(err)
}

// writeInto writes to what exists and is not a regular file.
func writeInto(to string, from io.Reader) (int64, error) {
	f, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return 0, unwritable(err)
	}
	n, err := io.Copy(f, from)
	return n, errors.Join(err, f.Close())
}

// replaceFile writes a regular file that appears under its name when it is complete. It gets the
// owner and mode of old, or those of any new file if old is nil.
func replaceFile(to string, old fs.FileInfo, from io.Reader) (n int64, err error) {
	perm := fs.FileMode(0o666) // the kernel applies the umask
	if old != nil {
		perm = 0o600 // until it has its owner
	}
	f, err := os.OpenFile(filepath.Join(filepath.Dir(to), ".lodge-s3-"+rand.Text()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return 0, unwritable(err)
	}
	n, err = io.Copy(f, from)
	if old != nil {
		err = errors.Join(err, likeOld(f, old))
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		return n, errors.Join(err, os.Remove(f.Name()))
	}
	return n, nil
}

func likeOld(f *os.File, old fs.FileInfo) error {
	if stat, ok := old.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(stat.Uid), int(stat.Gid)) // only root may; else the file is its writer's
	}
	return f.Chmod(old.Mode().Perm())
}
