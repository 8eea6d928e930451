package image_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway/gatewaytest"
	"lodge/vmhost/image"
)

// named renames an image's files as Build names them, as those of a build with this sum.
func named(t *testing.T, dir, name, sum string, mode os.FileMode) {
	t.Helper()
	manifest := map[string]any{"name": name, "cmdline": "ro", "sum": sum}
	for key, ext := range map[string]string{"disk": ".raw", "kernel": ".vmlinuz", "initrd": ".initrd"} {
		file := image.ContentName(name, sum) + ext
		gatewaytest.Must(t, os.Rename(filepath.Join(dir, name+ext), filepath.Join(dir, file)))
		info, err := os.Stat(filepath.Join(dir, file))
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, os.Chmod(filepath.Join(dir, file), mode))
		manifest[key] = part(file, info.Size())
	}
	text, err := json.Marshal(manifest)
	gatewaytest.Must(t, err)
	put(t, filepath.Join(dir, name+".json"), string(text))
}

// Only a disk that is named by its content, and that QEMU can read, serves as it is.
func TestOpenImmutable(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	dir := t.TempDir()
	fake(t, dir, "debian-13")
	if img, err := image.Open(dir, "debian-13"); err != nil || img.Immutable {
		t.Errorf("named by its image alone: %+v, %v", img, err)
	}
	named(t, dir, "debian-13", sum, 0o400)
	if img, err := image.Open(dir, "debian-13"); err != nil || img.Immutable {
		t.Errorf("unreadable for QEMU: %+v, %v", img, err)
	}
	gatewaytest.Must(t, os.Chmod(filepath.Join(dir, "debian-13-abababababababab.raw"), 0o444))
	if img, err := image.Open(dir, "debian-13"); err != nil || !img.Immutable || filepath.Base(img.Disk) != "debian-13-abababababababab.raw" {
		t.Errorf("named by its content: %+v, %v", img, err)
	}
}

// The files of an image that was replaced go once no disk is over them, and no others do.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for i, sum := range []string{strings.Repeat("0", 64), strings.Repeat("1", 64), strings.Repeat("2", 64)} {
		fake(t, dir, "debian-13")
		named(t, dir, "debian-13", sum, 0o444)
		if i == 2 {
			fake(t, dir, "debian-12") // of an older Lodge
		}
	}
	others := []string{"debian-13-notes.raw", "debian-13-2222222222222222.iso", "my-0000000000000000.raw.bak"}
	for _, name := range others {
		put(t, filepath.Join(dir, name), "")
	}
	put(t, filepath.Join(dir, "gone-0000000000000000.raw"), "")
	used := filepath.Join(dir, "debian-13-1111111111111111.raw")
	lock, err := os.Create(filepath.Join(dir, ".debian-13.lock"))
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	gatewaytest.Must(t, image.Sweep(dir, func(disk string) bool { return disk == used }))
	if _, err := os.Stat(filepath.Join(dir, "debian-13-0000000000000000.raw")); err != nil {
		t.Errorf("while the image is built: %v", err)
	}
	gatewaytest.Must(t, lock.Close())
	for _, stays := range []bool{true, false} {
		gatewaytest.Must(t, image.Sweep(dir, func(disk string) bool { return stays && disk == used }))
		want := []string{".debian-13.lock", ".gone.lock", "debian-12.initrd", "debian-12.json", "debian-12.raw", "debian-12.vmlinuz"}
		if stays {
			want = append(want, "debian-13-1111111111111111.initrd", "debian-13-1111111111111111.raw", "debian-13-1111111111111111.vmlinuz")
		}
		want = append(want, "debian-13-2222222222222222.initrd", "debian-13-2222222222222222.iso", "debian-13-2222222222222222.raw",
			"debian-13-2222222222222222.vmlinuz", "debian-13-notes.raw", "debian-13.json", "my-0000000000000000.raw.bak")
		if diff := cmp.Diff(want, files(t, dir)); diff != "" {
			t.Errorf("used: %v (-want +got):\n%s", stays, diff)
		}
	}
	put(t, filepath.Join(dir, "debian-13.json"), "{")
	if err := image.Sweep(dir, func(string) bool { return false }); err == nil || len(files(t, dir)) < 10 {
		t.Errorf("with a damaged manifest: %v, %v", err, files(t, dir))
	}
}
