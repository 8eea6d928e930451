package disk_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/durable"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/vmhost/disk"
)

// layer is a disk of a chain, as qemu-img info shows it.
type layer struct {
	Filename string `json:"filename"`
	Format   string `json:"format"`
	Size     int64  `json:"virtual-size"`
	Base     string `json:"full-backing-filename"`
	BaseKind string `json:"backing-filename-format"`
}

// chain returns the layers of a disk, the uppermost first.
func chain(t *testing.T, path string) (layers []layer) {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), "qemu-img", "info", "--output=json", "--backing-chain", path).Output()
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, json.Unmarshal(text, &layers))
	return layers
}

// checkEqual compares two raw disks. qemu-img passes over holes, which a sum would read.
func checkEqual(t *testing.T, a, b string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "qemu-img", "compare", "-f", "raw", "-F", "raw", a, b).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "Images are identical." {
		t.Errorf("the content differs: %v: %s", err, out)
	}
}

// over is an overlay of gib GiB over a raw disk.
func over(base string, gib int) disk.Overlay {
	return disk.Overlay{Base: base, Format: gateway.Raw, Bytes: int64(gib) << 30}
}

func TestCreateOverlay(t *testing.T) {
	base := newBase(t)
	for _, gib := range []int{1, 3, 3000} {
		path := filepath.Join(t.TempDir(), "a, b=c:d%e.qcow2") // each has a meaning in QEMU's options
		gatewaytest.Must(t, os.WriteFile(path+".new", []byte("left by a crash"), 0o600))
		if err := over(base, gib).Create(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		want := []layer{{path, "qcow2", int64(gib) << 30, base, "raw"}, {base, "raw", 1 << 30, "", ""}}
		if diff := cmp.Diff(want, chain(t, path)); diff != "" {
			t.Errorf("%d GiB (-want +got):\n%s", gib, diff)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o600 || info.Size() > 2*mib {
			t.Errorf("%d GiB: %v, %d bytes, %v", gib, info.Mode(), info.Size(), err)
		}
		checkAlone(t, path)
		if gib == 1 {
			raw := filepath.Join(t.TempDir(), "raw")
			out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-O", "raw", path, raw).CombinedOutput()
			if err != nil {
				t.Fatalf("convert: %v: %s", err, out)
			}
			checkEqual(t, raw, base)
		}
	}
}

func TestCreateOverlayRefuses(t *testing.T) {
	base := newBase(t)
	path := filepath.Join(t.TempDir(), "disk")
	if err := over(base+".absent", 2).Create(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a base: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := over(base, 2).Create(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	gatewaytest.Must(t, os.WriteFile(path, []byte("a VM's disk"), 0o600))
	if err := over(base, 2).Create(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another disk: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "a VM's disk" {
		t.Errorf("it was changed: %q %v", text, err)
	}
	checkAlone(t, path)
}

// qemu-img reports a full disk in words.
func TestCreateOverlayOnAFullDisk(t *testing.T) {
	base := newBase(t)
	for _, bytes := range []int64{4 << 10, 64 << 10} {
		dir := sandboxtest.SmallDisk(t, bytes)
		if err := over(base, 2).Create(t.Context(), filepath.Join(dir, "disk")); !durable.IsFull(err) {
			t.Errorf("%d bytes: %v", bytes, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%d bytes: left behind: %v %v", bytes, left, err)
		}
	}
}

// Any other failure of qemu-img is an error with its text.
func TestCreateOverlayShowsTheReason(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent", "disk")
	err := over(newBase(t), 2).Create(t.Context(), path)
	if err == nil || durable.IsFull(err) || !strings.Contains(err.Error(), "No such file or directory") {
		t.Errorf("got %v", err)
	}
}

func TestCopyTemp(t *testing.T) {
	base := newBase(t)
	path := filepath.Join(t.TempDir(), "copy")
	gatewaytest.Must(t, os.WriteFile(path, []byte(strings.Repeat("left by a crash", 1000)), 0o644))
	gatewaytest.Must(t, os.Truncate(path, 2<<30))
	gatewaytest.Must(t, disk.CopyTemp(t.Context(), path, base))
	info, err := os.Stat(path)
	gatewaytest.Must(t, err)
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != 1<<30 || used > 64*mib { //nolint:forcetypeassert // on Linux it is
		t.Errorf("%d bytes, of which %d are taken", info.Size(), used)
	}
	checkEqual(t, path, base)
	checkAlone(t, path)
	gatewaytest.Must(t, os.Remove(path))
	gatewaytest.Must(t, disk.CopyTemp(t.Context(), path, base))
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("a new file has mode %v, %v", info.Mode(), err)
	}
}

func TestCopyFails(t *testing.T) {
	base := newBase(t)
	path := filepath.Join(t.TempDir(), "copy")
	if err := disk.CopyTemp(t.Context(), path, base+".absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := disk.CopyTemp(ctx, path, base); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	dir := sandboxtest.SmallDisk(t, 1*mib)
	if err := disk.CopyTemp(t.Context(), filepath.Join(dir, "copy"), base); !durable.IsFull(err) {
		t.Errorf("full: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// An end of the context while qemu-img runs is the context's error.
func TestCreateOverlayEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	program, begun := filepath.Join(dir, "qemu-img"), filepath.Join(dir, "begun")
	gatewaytest.Must(t, os.WriteFile(program, []byte("#!/bin/sh\n: >"+begun+"; exec sleep 60\n"), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	base := newBase(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- over(base, 2).Create(ctx, filepath.Join(dir, "disk")) }()
	gatewaytest.WaitFor(t, "qemu-img runs", func() bool { _, err := os.Stat(begun); return err == nil })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The partition of a Lodge image ends where the disk does; nothing else differs from the base.
func TestOverlayGrowsThePartition(t *testing.T) {
	base := newBase(t)
	for _, gib := range []int{1, 3, 3000} {
		dir := t.TempDir()
		o := over(base, gib)
		o.Grow = true
		gatewaytest.Must(t, o.Create(t.Context(), filepath.Join(dir, "disk")))
		raw := filepath.Join(t.TempDir(), "raw")
		gatewaytest.Must(t, disk.Flatten(t.Context(), raw, parts(filepath.Join(dir, "disk"), base)))
		head, was := make([]byte, 512), make([]byte, 512)
		readAt(t, raw, head)
		readAt(t, base, was)
		sectors := uint32(min(int64(gib)<<21, 1<<32-1)) - 2048 //nolint:gosec // it fits
		if got := binary.LittleEndian.Uint32(head[458:]); got != sectors {
			t.Errorf("%d GiB: the partition has %d sectors, not %d", gib, got, sectors)
		}
		copy(head[458:462], was[458:462])
		if !bytes.Equal(head, was) || sum(t, raw, 508<<20, 520<<20) != sum(t, base, 508<<20, 520<<20) {
			t.Errorf("%d GiB: the content differs", gib)
		}
		checkAlone(t, filepath.Join(dir, "disk"))
	}
	other := filepath.Join(t.TempDir(), "other") // whose partitions are its own business
	gatewaytest.Must(t, os.WriteFile(other, make([]byte, 1<<20), 0o600))
	o := over(other, 1)
	o.Grow = true
	path, raw := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "raw")
	gatewaytest.Must(t, o.Create(t.Context(), path))
	gatewaytest.Must(t, disk.Flatten(t.Context(), raw, parts(path, other)))
	head := make([]byte, 512)
	readAt(t, raw, head)
	if !bytes.Equal(head, make([]byte, 512)) {
		t.Errorf("the first sector of another disk was changed: %x", head)
	}
}

// parts are qcow2 disks over a raw one.
func parts(files ...string) (parts []disk.Part) {
	for i, file := range files {
		format := gateway.QCOW2
		if i == len(files)-1 {
			format = gateway.Raw
		}
		parts = append(parts, disk.Part{File: file, Format: format})
	}
	return parts
}

// What is recorded of a chain counts, not what a header names: a power cut may leave one that names a disk
// further below.
func TestFlattenIgnoresHeaders(t *testing.T) {
	base := newBase(t)
	dir := t.TempDir()
	lower, upper, flat := filepath.Join(dir, `low"er`), filepath.Join(dir, "upper"), filepath.Join(t.TempDir(), "flat")
	gatewaytest.Must(t, over(base, 2).Create(t.Context(), lower))
	tool := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	tool("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 1M 4k", lower)
	gatewaytest.Must(t, disk.Overlay{Base: lower, Format: gateway.QCOW2, Bytes: 2 << 30}.Create(t.Context(), upper))
	tool("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", base, upper)
	gatewaytest.Must(t, disk.Flatten(t.Context(), flat, parts(upper, lower, base)))
	got := make([]byte, mib+4096)
	readAt(t, flat, got)
	if want := bytes.Repeat([]byte{7}, 4096); !bytes.Equal(got[mib:], want) {
		t.Errorf("the layer in between is missing: %x...", got[mib:mib+8])
	}
}

func TestFlatten(t *testing.T) {
	base := newBase(t)
	dir := t.TempDir()
	lower, upper, flat := filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(t.TempDir(), "flat")
	gatewaytest.Must(t, over(base, 2).Create(t.Context(), lower))
	gatewaytest.Must(t, disk.Overlay{Base: lower, Format: gateway.QCOW2, Bytes: 2 << 30}.Create(t.Context(), upper))
	gatewaytest.Must(t, disk.Flatten(t.Context(), flat, parts(upper, lower, base)))
	gatewaytest.Must(t, os.Truncate(base, 2<<30))
	checkEqual(t, flat, base)
	checkAlone(t, flat)
	if info, err := os.Stat(flat); err != nil || info.Mode() != 0o600 || info.Size() != 2<<30 || disk.Occupied(flat) > 64*mib {
		t.Errorf("%v, %v, %d bytes are taken", info, err, disk.Occupied(flat))
	}
	if err := disk.Flatten(t.Context(), flat, parts(upper, lower, base)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another disk: %v", err)
	}
	full := sandboxtest.SmallDisk(t, mib)
	if err := disk.Flatten(t.Context(), filepath.Join(full, "flat"), parts(upper, lower, base)); !durable.IsFull(err) {
		t.Errorf("on a full disk: %v", err)
	}
	if left, err := os.ReadDir(full); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
