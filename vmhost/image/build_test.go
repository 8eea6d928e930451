package image_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/vmhost/disk"
	"lodge/vmhost/image"
)

var (
	buildDir  = flag.String("image.build", "", "build a real image in this directory")
	buildName = flag.String("image.name", image.Default, "which image")
)

// nowhere is a mirror that refuses connections at once.
const nowhere = "http://127.0.0.1:9/debian"

// TestBuildReal builds a real image from the mirror, as root, in the directory of a flag. It logs
// the duration of each phase.
func TestBuildReal(t *testing.T) {
	if *buildDir == "" {
		t.Skip("needs root, a Debian mirror and a minute: -image.build=DIR [-image.name=debian-12]")
	}
	err := image.Build(t.Context(), image.Recipe{Name: *buildName, Dir: *buildDir, Progress: func(p gateway.Progress) {
		t.Logf("%6.1fs %-10s %d/%d %s", p.Elapsed.Seconds(), p.Phase, p.Done, p.Total, p.Text)
	}})
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	img, err := image.Open(*buildDir, *buildName)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	begun := time.Now()
	over := disk.Overlay{Base: img.Disk, Format: gateway.Raw, Bytes: 10 << 30, Grow: true}
	if err := over.Create(t.Context(), filepath.Join(t.TempDir(), "disk")); err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Logf("a disk was made of it in %v", time.Since(begun))
}

func TestBuildUnknown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "images")
	err := image.Build(t.Context(), image.Recipe{Name: "debian-7", Dir: dir})
	if gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("Build: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made")
	}
}

// A build that fails names the cause, keeps the image that was there, and leaves nothing else. It
// removes what an interrupted build has left.
func TestBuildFails(t *testing.T) {
	dir := t.TempDir()
	fake(t, dir, "debian-13")
	if err := os.MkdirAll(filepath.Join(dir, ".build-debian-13", "root", "dev"), 0o700); err != nil {
		t.Fatal(err)
	}

	var steps int
	err := image.Build(t.Context(), image.Recipe{
		Name: "debian-13", Dir: dir, Mirror: nowhere, SecurityMirror: nowhere,
		Progress: func(gateway.Progress) { steps++ },
	})
	e, ok := errors.AsType[*gateway.Error](err)
	if !ok || e.Kind != gateway.KindUnavailable || !strings.Contains(e.Msg, "mirror") || steps < 2 {
		t.Errorf("Build after %d steps: %v, caused by %v", steps, err, errors.Unwrap(err))
	}
	checkUntouched(t, dir)
}

func TestBuildCancelled(t *testing.T) {
	dir := t.TempDir()
	fake(t, dir, "debian-13")
	ctx, cancel := context.WithCancel(t.Context())
	err := image.Build(ctx, image.Recipe{Name: "debian-13", Dir: dir, Mirror: nowhere, SecurityMirror: nowhere, Progress: func(p gateway.Progress) {
		if p.Done > 0 { // mmdebstrap runs
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Build: %v", err)
	}
	checkUntouched(t, dir)
}

func TestBuildTwice(t *testing.T) {
	dir := t.TempDir()
	lock, err := os.Create(filepath.Join(dir, ".debian-13.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := image.Build(t.Context(), image.Recipe{Name: "debian-13", Dir: dir}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("Build: %v", err)
	}
}

func TestBuildNoSpace(t *testing.T) {
	err := image.Build(t.Context(), image.Recipe{Name: "debian-13", Dir: tmpfs(t, "16m")})
	e, ok := errors.AsType[*gateway.Error](err)
	if !ok || e.Kind != gateway.KindNoSpace || !strings.Contains(e.Msg, "16 MiB are free") {
		t.Errorf("Build: %v", err)
	}
}

// checkUntouched checks that dir has the fake image, the lock, and no other file.
func checkUntouched(t *testing.T, dir string) {
	t.Helper()
	want := []string{".debian-13.lock", "debian-13.initrd", "debian-13.json", "debian-13.raw", "debian-13.vmlinuz"}
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Errorf("files: %s", diff)
	}
	if _, err := image.Open(dir, "debian-13"); err != nil {
		t.Errorf("the older image: %v", err)
	}
}
