package disk_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/vmhost/disk"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// newBase writes a disk like that of an image: a boot sector with one partition from 1 MiB, some
// data, holes.
func newBase(t *testing.T) string {
	t.Helper()
	const size = 1 << 30 // an integral GiB, so that a disk can be exactly as large
	sector := make([]byte, 512)
	sector[0], sector[446+4], sector[510], sector[511] = 0xeb, 0x83, 0x55, 0xaa
	copy(sector[440:], "GDOL") // the signature, little-endian
	sector[446+9] = 2048 >> 8  // first LBA
	path := filepath.Join(t.TempDir(), "base.raw")
	f, err := os.Create(path)
	gatewaytest.Must(t, err)
	_, errHead := f.Write(sector)
	_, errData := f.WriteAt(bytes.Repeat([]byte("data"), 1<<20), 512<<20)
	gatewaytest.Must(t, errors.Join(errHead, errData, f.Truncate(size), f.Close()))
	return path
}

func TestCreate(t *testing.T) {
	base := newBase(t)
	for _, gib := range []int{1, 3, 3000} {
		path := filepath.Join(t.TempDir(), "disk")
		if err := disk.Create(t.Context(), path, base, gib); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() != int64(gib)<<30 || info.Mode() != 0o600 {
			t.Fatalf("%d GiB: %v %v", gib, info, err)
		}
		if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 64<<20 { //nolint:forcetypeassert // on Linux it is
			t.Errorf("%d GiB take %d bytes: holes were copied", gib, used)
		}
		if a, b := sum(t, base, 508<<20, 520<<20), sum(t, path, 508<<20, 520<<20); a != b {
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

func TestCopy(t *testing.T) {
	base := filepath.Join(t.TempDir(), "kernel")
	gatewaytest.Must(t, os.WriteFile(base, []byte("kernel"), 0o600))
	gatewaytest.Must(t, os.Truncate(base, 3<<20)) // a hole up to the end
	path := filepath.Join(t.TempDir(), "copy")
	gatewaytest.Must(t, disk.Copy(t.Context(), path, base, 0o644))
	if info, err := os.Stat(path); err != nil || info.Size() != 3<<20 || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	if sum(t, base, 0, 3<<20) != sum(t, path, 0, 3<<20) {
		t.Error("the content differs")
	}
	if err := disk.Copy(t.Context(), path, base, 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another file: %v", err)
	}
	if err := disk.Copy(t.Context(), path+"2", base+"2", 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no file: %v", err)
	}
	checkAlone(t, path)
}

func TestCreateRefuses(t *testing.T) {
	base := newBase(t)
	path := filepath.Join(t.TempDir(), "disk")
	if err := disk.Create(t.Context(), path, base, 0); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("too small: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := disk.Create(ctx, path, base, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	gatewaytest.Must(t, os.WriteFile(path, []byte("a VM's disk"), 0o600))
	gatewaytest.Must(t, os.WriteFile(path+".new", []byte("left by a crash"), 0o600))
	if err := disk.Create(t.Context(), path, base, 2); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another disk: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "a VM's disk" {
		t.Errorf("it was changed: %q %v", text, err)
	}
	checkAlone(t, path)
}

func TestCreateOnAFullDisk(t *testing.T) {
	base := newBase(t)
	dir := sandboxtest.SmallDisk(t, 1<<20)
	if err := disk.Create(t.Context(), filepath.Join(dir, "disk"), base, 2); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Create: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// checkAlone checks that path is the only file in its directory.
func checkAlone(t *testing.T, path string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside %s: %v %v", path, left, err)
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

// 5 % of the disk stay free, whatever a new VM takes.
func TestCheckRoomKeepsAReserve(t *testing.T) {
	dir := sandboxtest.SmallDisk(t, 100<<20)
	base := newBase(t) // takes 4 MiB
	filler := filepath.Join(dir, "filler")
	for mib, room := range map[int]bool{0: true, 89: true, 92: false, 99: false} {
		gatewaytest.Must(t, os.WriteFile(filler, make([]byte, mib<<20), 0o600))
		err := disk.CheckRoom(dir, base)
		if room && err == nil {
			continue
		}
		e, ok := errors.AsType[*gateway.Error](err)
		if room || !ok || e.Kind != gateway.KindNoSpace || !strings.Contains(e.Msg, "of 100.0 MiB are free in "+dir) ||
			!strings.Contains(e.Msg, "5.0 MiB stay in reserve") || !strings.Contains(e.Hint, "df -h "+dir) {
			t.Errorf("%d MiB used: %v (%+v), want room: %v", mib, err, e, room)
		}
	}
}
