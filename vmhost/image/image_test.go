package image_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/vmhost/image"
)

const testBytes = 1 << 30 // a whole GiB, so that a disk can be exactly as large

// fake writes an image that Open takes: a boot sector of Build's kind, some data, holes.
func fake(t *testing.T, dir, name string) {
	t.Helper()
	sector := make([]byte, 512)
	sector[0], sector[446+4], sector[510], sector[511] = 0xeb, 0x83, 0x55, 0xaa
	copy(sector[440:], "GDOL") // the signature, little-endian
	f, err := os.Create(filepath.Join(dir, name+".raw"))
	if err != nil {
		t.Fatal(err)
	}
	_, errHead := f.Write(sector)
	_, errData := f.WriteAt(bytes.Repeat([]byte("data"), 1<<20), 512<<20)
	if err := errors.Join(errHead, errData, f.Truncate(testBytes), f.Close()); err != nil {
		t.Fatal(err)
	}
	parts := map[string]any{"name": name, "cmdline": "ro", "disk": part(name+".raw", testBytes)}
	for key, file := range map[string]string{"kernel": name + ".vmlinuz", "initrd": name + ".initrd"} {
		put(t, filepath.Join(dir, file), key)
		parts[key] = part(file, int64(len(key)))
	}
	text, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, name+".json"), string(text))
}

func part(file string, size int64) map[string]any { return map[string]any{"file": file, "bytes": size} }

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(file string) error // gets the image's path without an extension
		kind  gateway.Kind
		says  string
	}{
		"whole":            {func(string) error { return nil }, "", ""},
		"missing":          {func(file string) error { return os.Remove(file + ".json") }, gateway.KindNotFound, "there is no image"},
		"no disk":          {func(file string) error { return os.Remove(file + ".raw") }, gateway.KindInvalid, "debian-13.raw is missing"},
		"no kernel":        {func(file string) error { return os.Remove(file + ".vmlinuz") }, gateway.KindInvalid, "debian-13.vmlinuz is missing"},
		"truncated":        {func(file string) error { return os.Truncate(file+".raw", testBytes-1) }, gateway.KindInvalid, "has 1073741823 bytes instead"},
		"truncated initrd": {func(file string) error { return os.Truncate(file+".initrd", 1) }, gateway.KindInvalid, "instead of"},
		"not a disk": {func(file string) error {
			return errors.Join(os.Truncate(file+".raw", 0), os.Truncate(file+".raw", testBytes))
		}, gateway.KindInvalid, "not a bootable disk"},
		"manifest cut off": {func(file string) error { return os.Truncate(file+".json", 20) }, gateway.KindInvalid, "manifest cannot be read"},
		"empty manifest":   {func(file string) error { return os.WriteFile(file+".json", []byte("{}"), 0o600) }, gateway.KindInvalid, "names no file"},
		"manifest leads elsewhere": {func(file string) error {
			return os.WriteFile(file+".json", []byte(`{"disk":{"file":"../passwd","bytes":1}}`), 0o600)
		}, gateway.KindInvalid, "names no file"},
		"a directory": {func(file string) error {
			return errors.Join(os.Remove(file+".raw"), os.Mkdir(file+".raw", 0o700))
		}, gateway.KindInvalid, "instead of"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fake(t, dir, "debian-13")
			file := filepath.Join(dir, "debian-13")
			if err := row.spoil(file); err != nil {
				t.Fatal(err)
			}
			img, err := image.Open(dir, "debian-13")
			if row.kind == "" {
				if err != nil || img.Disk != file+".raw" || img.Cmdline != "ro" || img.Kernel != file+".vmlinuz" {
					t.Errorf("Open: %+v, %v", img, err)
				}
				return
			}
			said, ok := errors.AsType[*gateway.Error](err)
			if !ok || said.Kind != row.kind || !strings.Contains(said.Msg, row.says) || said.Hint != "Build it: lodge image build debian-13" {
				t.Errorf("Open: %#v", err)
			}
		})
	}
}

func TestOpenNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../debian-13", "a/b", "a\x00", ".build-debian-13", strings.Repeat("x", 101)} {
		if _, err := image.Open(t.TempDir(), name); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("Open(%q): %v", name, err)
		}
	}
	_, err := image.Open(t.TempDir(), "fedora")
	if said, ok := errors.AsType[*gateway.Error](err); !ok || said.Kind != gateway.KindNotFound || !strings.Contains(said.Hint, "debian-13, debian-12") {
		t.Errorf("Open(fedora): %#v", err)
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b", "a", "c"} {
		fake(t, dir, name)
	}
	remove(t, filepath.Join(dir, "b.raw"))
	images, err := image.List(dir)
	var names []string
	for _, img := range images {
		names = append(names, img.Name)
	}
	if diff := cmp.Diff([]string{"a", "c"}, names); diff != "" || gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("%s %v", diff, err)
	}
}

func TestNewDisk(t *testing.T) {
	img := open(t)
	for _, gib := range []int{1, 3, 3000} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := img.NewDisk(t.Context(), path, gib); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() != int64(gib)<<30 || info.Mode() != 0o600 {
			t.Fatalf("%d GiB: %v %v", gib, info, err)
		}
		if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 64<<20 { //nolint:forcetypeassert // on Linux it is
			t.Errorf("%d GiB take %d bytes: holes were copied", gib, used)
		}
		if a, b := sum(t, img.Disk, 508<<20, 520<<20), sum(t, path, 508<<20, 520<<20); a != b {
			t.Errorf("%d GiB: the content differs", gib)
		}
		head := make([]byte, 512)
		readAt(t, path, head)
		sectors := min(uint32(1<<32-1), uint32(min(int64(gib)<<21, 1<<32-1))) - 2048
		if got := uint32(head[458]) | uint32(head[459])<<8 | uint32(head[460])<<16 | uint32(head[461])<<24; got != sectors || head[0] != 0xeb {
			t.Errorf("%d GiB: the partition has %d sectors, not %d", gib, got, sectors)
		}
		checkAlone(t, path)
	}
}

func TestNewDiskRefuses(t *testing.T) {
	img := open(t)
	path := filepath.Join(t.TempDir(), "disk")
	if err := img.NewDisk(t.Context(), path, 0); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("too small: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := img.NewDisk(ctx, path, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	put(t, path, "a VM's disk")
	put(t, path+".new", "left by a crash")
	if err := img.NewDisk(t.Context(), path, 2); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another disk: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "a VM's disk" {
		t.Errorf("it was touched: %q %v", text, err)
	}
	checkAlone(t, path)
}

func TestNewDiskFull(t *testing.T) {
	img := open(t)
	dir := tmpfs(t, "1m")
	if err := img.NewDisk(t.Context(), filepath.Join(dir, "disk"), 2); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("NewDisk: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func open(t *testing.T) image.Image {
	t.Helper()
	dir := t.TempDir()
	fake(t, dir, "debian-13")
	img, err := image.Open(dir, "debian-13")
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// tmpfs mounts one of a size.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("this test needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// checkAlone sees to it that nothing lies beside path.
func checkAlone(t *testing.T, path string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside %s: %v %v", path, left, err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func readAt(t *testing.T, path string, into []byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, into); err != nil {
		t.Fatal(err)
	}
}

// sum is the checksum of a part of a file.
func sum(t *testing.T, path string, from, to int64) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, from, to-from)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// files lists what is in a directory, sorted.
func files(t *testing.T, dir string) []string {
	t.Helper()
	found := map[string]bool{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		found[e.Name()] = true
	}
	return slices.Sorted(maps.Keys(found))
}
