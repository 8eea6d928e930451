package sandboxtest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Tmpfs mounts an empty file system over each path, so that daemons with fixed paths (libvirtd's
// /run/libvirt) neither see nor leave files on the machine. A path that does not exist is made, and
// stays as an empty directory.
func Tmpfs(paths ...string) Option {
	return func() error {
		for _, path := range paths {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return fmt.Errorf("make mount point: %w", err)
			}
			if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "mode=0755"); err != nil {
				return fmt.Errorf("mount tmpfs on %s: %w", path, err)
			}
		}
		return nil
	}
}

// SmallDisk returns a directory that is a file system of its own with room for that many bytes, for
// tests of a full disk. It is removed when the test ends. It works only in tests under Main.
func SmallDisk(tb testing.TB, bytes int64) string {
	tb.Helper()
	temp := tb.TempDir()
	dir := filepath.Join(temp, "disk")
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(temp), 0o711); err != nil { //nolint:gosec // it is 0700, and QEMU, another user, passes through
		tb.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", bytes)); err != nil {
		tb.Fatalf("mount a small disk: %v", err)
	}
	tb.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			tb.Errorf("unmount the small disk: %v", err)
		}
	})
	return dir
}
