package image_test

import (
	"bytes"
	"encoding/json"
	"errors"
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

const testBytes = 1 << 30 // one GiB: the smallest disk is as large

// fake writes an image that Open accepts: a boot sector as Build writes it, some data, holes.
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
		want  string
	}{
		"complete":         {func(string) error { return nil }, "", ""},
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
			e, ok := errors.AsType[*gateway.Error](err)
			if !ok || e.Kind != row.kind || !strings.Contains(e.Msg, row.want) || e.Hint != "Build it: lodge image build debian-13" {
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
	if e, ok := errors.AsType[*gateway.Error](err); !ok || e.Kind != gateway.KindNotFound || !strings.Contains(e.Hint, "debian-13, debian-12") {
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

// tmpfs mounts a tmpfs of this size.
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

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
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
