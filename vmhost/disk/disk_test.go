package disk_test

import (
	"bytes"
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

func TestCopyOnAFullDisk(t *testing.T) {
	base := newBase(t)
	dir := sandboxtest.SmallDisk(t, 1<<20)
	if err := disk.Copy(t.Context(), filepath.Join(dir, "disk"), base, 0o444); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Copy: %v", err)
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
	filler := filepath.Join(dir, "filler")
	for mib, room := range map[int]bool{0: true, 89: true, 92: false, 99: false} {
		gatewaytest.Must(t, os.WriteFile(filler, make([]byte, mib<<20), 0o600))
		err := disk.CheckRoom(dir, 4<<20)
		if room && err == nil {
			continue
		}
		e, ok := errors.AsType[*gateway.Error](err)
		if room || !ok || e.Kind != gateway.KindNoSpace || !strings.Contains(e.Msg, "of 100.0 MiB are free in "+dir) ||
			!strings.Contains(e.Msg, "4.0 MiB more are needed") || !strings.Contains(e.Msg, "5.0 MiB stay in reserve") || !strings.Contains(e.Hint, "df -h "+dir) {
			t.Errorf("%d MiB used: %v (%+v), want room: %v", mib, err, e, room)
		}
	}
}
