package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway/gatewaytest"
)

// A build replaces the manifest alone: the files of the one before stay until a sweep, but for those
// of an older Lodge, which no disk is over.
func TestPublish(t *testing.T) {
	dir := t.TempDir()
	b := &build{recipe: Recipe{Name: "debian-13", Dir: dir}}
	publish := func(sum string) Image {
		t.Helper()
		parts := make([]string, 3)
		for i, name := range []string{"raw", "kernel", "initrd"} {
			parts[i] = filepath.Join(t.TempDir(), name)
			gatewaytest.Must(t, os.WriteFile(parts[i], mbr([]byte{0xeb}, 4096), 0o600))
		}
		gatewaytest.Must(t, b.publish(sum, parts[0], parts[1], parts[2]))
		img, err := Open(dir, "debian-13")
		if err != nil || !img.Immutable || !img.Templatable || img.Sum != sum {
			t.Errorf("published: %+v, %v", img, err)
		}
		return img
	}
	for _, ext := range []string{diskExt, kernelExt, initrdExt} {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "debian-13"+ext), nil, 0o600))
	}
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, "debian-13.json"), []byte(
		`{"disk":{"file":"debian-13.raw"},"kernel":{"file":"debian-13.vmlinuz"},"initrd":{"file":"debian-13.initrd"}}`), 0o600))
	first := publish(strings.Repeat("1", 64))
	second := publish(strings.Repeat("2", 64))
	publish(strings.Repeat("2", 64)) // the same content again
	if first.Disk == second.Disk || first.Kernel == second.Kernel {
		t.Errorf("%+v replaces files of %+v", second, first)
	}
	for path, want := range map[string]os.FileMode{first.Disk: 0o444, first.Kernel: 0o644, second.Disk: 0o444, second.Initrd: 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info, err, want)
		}
	}
	old, err := filepath.Glob(filepath.Join(dir, "debian-13.*"))
	if diff := cmp.Diff([]string{filepath.Join(dir, "debian-13.json")}, old); err != nil || diff != "" {
		t.Errorf("files of an older Lodge: %v\n%s", err, diff)
	}
}
