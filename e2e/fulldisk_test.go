package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/sandboxtest"
)

// TestFullDisk: where the host's disk is full, a VM is not made, mail gets 452 and PUT an error,
// and nothing is left behind. All of it works once there is room.
func TestFullDisk(t *testing.T) {
	harness.NeedVMs(t)
	dir := sandboxtest.SmallDisk(t, 2<<30)       // room for one VM
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // QEMU's user passes through
		t.Fatal(err)
	}
	h := harness.New(t, dir)
	h.UseImages(t)
	h.StartLibvirt(t)
	h.StartDaemon(t)
	s := &suite{h: h}
	h.Lodge(t, "new", "tiny", "--direct-boot", "--memory", "256")
	h.Lodge(t, "stop", "--force", "tiny")

	up := filepath.Join(t.TempDir(), "up")
	if err := os.WriteFile(up, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the template is made, which takes room as well", 5*time.Minute, func() error {
		if list := harness.JSON[api.ImageList](t, h, "image", "ls"); len(list.Templates) == 0 {
			return errors.New("there is none yet")
		}
		return nil
	})
	filler := fill(t, dir)
	r := h.TryLodge(t, "new", "more", "--direct-boot")
	if r.Code == 0 || !strings.Contains(r.Stderr, "full") || !strings.Contains(r.Stderr, "hint: ") {
		t.Errorf("a VM on a full disk: %d %s", r.Code, r.Text())
	}
	r = s.trySend(t, "person@example.org", "x@tiny."+h.Domain, "--body", strings.Repeat(strings.Repeat("x", 70)+"\n", 1500))
	if r.Code == 0 || !strings.Contains(r.Text(), "<** 452") {
		t.Errorf("mail on a full disk: want 452, got %s", r.Text())
	}
	r = h.TryLodge(t, "s3", "cp", up, "tiny:bucket/up")
	if r.Code == 0 {
		t.Errorf("PUT on a full disk worked: %s", r.Text())
	}
	r = h.Run(t, nil, filepath.Join(harness.Programs(t, false), "lodged"),
		"build-image", "-state-dir", filepath.Join(dir, "other"), "debian-12") // h's images are read-only
	if r.Code == 0 || !strings.Contains(r.Text(), "the host's disk is full") {
		t.Errorf("an image on a full disk: %d %s", r.Code, r.Text())
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if all := harness.JSON[[]api.VM](t, h, "ls"); len(all) != 1 {
		t.Errorf("there should be one VM: %+v", all)
	}
	if mail := harness.JSON[[]gateway.Message](t, h, "mail", "tiny"); len(mail) != 0 {
		t.Errorf("mail that was not accepted is there: %+v", mail)
	}
	lacks(t, "objects after a PUT that failed", h.TryLodge(t, "s3", "ls", "tiny/bucket").Stdout, "up")
	s.send(t, "person@example.org", "x@tiny."+h.Domain, "room again")
	h.Lodge(t, "s3", "cp", up, "tiny:bucket/up")
	contains(t, "objects", h.Lodge(t, "s3", "ls", "tiny/bucket"), "up")
}

// TestNoLibvirtd: without libvirtd the daemon runs, and its errors name what is missing.
func TestNoLibvirtd(t *testing.T) {
	harness.NeedVMs(t)
	h := harness.New(t)
	h.UseImages(t)
	h.StartDaemon(t)
	r := h.TryLodge(t, "new", "alpha")
	if r.Code == 0 || !strings.Contains(r.Stderr, "libvirtd") || !strings.Contains(r.Stderr, "hint: ") {
		t.Errorf("lodge new without libvirtd: %d %s", r.Code, r.Text())
	}
	leavesNothing(t, h)
}

// fill leaves no room on the file system of dir.
func fill(t *testing.T, dir string) (filler string) {
	t.Helper()
	var room syscall.Statfs_t
	if err := syscall.Statfs(dir, &room); err != nil {
		t.Fatal(err)
	}
	filler = filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const leave = 8 << 10
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(room.Bavail)*room.Bsize-leave); err != nil {
		t.Fatalf("fill the disk: %v", err)
	}
	return filler
}
