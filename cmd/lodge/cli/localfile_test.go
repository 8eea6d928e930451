package cli

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
)

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// A download into a device or a FIFO writes to it and never replaces it.
func TestWriteFileSpecial(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0) // both ways, so that no open blocks
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if n, err := writeFile(fifo, strings.NewReader("body")); n != 4 || err != nil {
		t.Errorf("FIFO: %d, %v", n, err)
	}
	if got := mode(t, fifo); got != fs.ModeNamedPipe|0o600 {
		t.Fatalf("the FIFO is now %v", got)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "body" {
		t.Errorf("the FIFO has %q, %v", got, err)
	}

	device := filepath.Join(dir, "null")
	if err := syscall.Mknod(device, syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Skipf("no device can be made: %v", err)
	}
	before := mode(t, device)
	if n, err := writeFile(device, strings.NewReader("body")); n != 4 || err != nil {
		t.Errorf("device: %d, %v", n, err)
	}
	if got := mode(t, device); got != before {
		t.Errorf("the device is now %v", got)
	}
}

// A download through a symbolic link replaces the link's target. It makes nothing behind a link
// without a target.
func TestWriteFileSymlink(t *testing.T) {
	dir := t.TempDir()
	target, link, dangling := filepath.Join(dir, "a", "target"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := os.Mkdir(filepath.Dir(target), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a/target", link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a/none", dangling); err != nil {
		t.Fatal(err)
	}
	if _, err := writeFile(link, strings.NewReader("new")); err != nil {
		t.Error(err)
	}
	if got := mode(t, link).Type(); got != fs.ModeSymlink {
		t.Errorf("the link is now %v", got)
	}
	if got, err := os.ReadFile(target); string(got) != "new" {
		t.Errorf("the target has %q, %v", got, err)
	}
	if _, err := writeFile(dangling, strings.NewReader("new")); err == nil || mode(t, dangling).Type() != fs.ModeSymlink {
		t.Errorf("a dangling link: %v, now %v", err, mode(t, dangling))
	}
}

// A download keeps the mode and the owner of an existing file; a new one has the mode of the umask.
func TestWriteFileMode(t *testing.T) {
	umask := syscall.Umask(0o027)
	t.Cleanup(func() { syscall.Umask(umask) })
	dir := t.TempDir()
	private, fresh := filepath.Join(dir, "private"), filepath.Join(dir, "fresh")
	if err := os.WriteFile(private, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open") // has more than the umask gives
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0
	if root {
		if err := os.Chown(private, 1234, 5678); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]fs.FileMode{private: 0o600, open: 0o666, fresh: 0o640} {
		if _, err := writeFile(path, strings.NewReader("new")); err != nil {
			t.Error(err)
		}
		if got := mode(t, path); got != want {
			t.Errorf("%s has mode %v, want %v", filepath.Base(path), got, want)
		}
	}
	if info, err := os.Stat(private); root && (err != nil || info.Sys().(*syscall.Stat_t).Uid != 1234 || info.Sys().(*syscall.Stat_t).Gid != 5678) {
		t.Errorf("the file has another owner: %+v, %v", info.Sys(), err)
	}
}

// A download that fails leaves the existing file and nothing else.
func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := writeFile(file, io.MultiReader(strings.NewReader("new"), iotest.ErrReader(io.ErrUnexpectedEOF))); err == nil {
		t.Error("no error")
	}
	if got, err := os.ReadFile(file); string(got) != "old" {
		t.Errorf("the file has %q, %v", got, err)
	}
	if left, err := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}
