package vmhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/image"
)

func TestCheckSpec(t *testing.T) {
	good := gateway.Spec{Name: "blog", Size: gateway.Size{Image: "debian-13", CPUs: 2, MemoryMiB: 1024, DiskGiB: 10}}
	for name, tt := range map[string]struct {
		change func(*gateway.Spec)
		want   string // part of the error; none if empty
	}{
		"good":             {func(*gateway.Spec) {}, ""},
		"cloud-config":     {func(s *gateway.Spec) { s.UserData = "#cloud-config\n" }, ""},
		"script":           {func(s *gateway.Spec) { s.UserData = "#!/bin/sh\n" }, ""},
		"image elsewhere":  {func(s *gateway.Spec) { s.Image = "../etc" }, "name of an image"},
		"hidden image":     {func(s *gateway.Spec) { s.Image = ".." }, "name of an image"},
		"negative CPUs":    {func(s *gateway.Spec) { s.CPUs = -1 }, "CPUs"},
		"many CPUs":        {func(s *gateway.Spec) { s.CPUs = 65 }, "CPUs"},
		"little memory":    {func(s *gateway.Spec) { s.MemoryMiB = 64 }, "memory"},
		"more memory":      {func(s *gateway.Spec) { s.MemoryMiB = 4097 }, "memory"},
		"small disk":       {func(s *gateway.Spec) { s.DiskGiB = 1 }, "disk"},
		"huge disk":        {func(s *gateway.Spec) { s.DiskGiB = 1 << 20 }, "disk"},
		"unknown userdata": {func(s *gateway.Spec) { s.UserData = "echo hello" }, "user data"},
		"huge userdata": {func(s *gateway.Spec) {
			s.UserData = "#!/bin/sh\n" + strings.Repeat("#", gateway.MaxUserDataBytes)
		}, "user data"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := good
			tt.change(&spec)
			err := check(spec, 4096)
			if tt.want == "" && err == nil {
				return
			}
			e, ok := errors.AsType[*gateway.Error](err)
			if !ok || e.Kind != gateway.KindInvalid || e.Hint == "" || tt.want == "" || !strings.Contains(e.Msg, tt.want) {
				t.Errorf("got %v (%+v), want KindInvalid about %q with a hint", err, e, tt.want)
			}
		})
	}
}

func TestHostMemory(t *testing.T) {
	if mib, err := hostMemory(); err != nil || mib < 64 {
		t.Errorf("the host has %d MiB (%v)", mib, err)
	}
}

// QEMU is not root: it passes through the directories whatever the daemon's umask is (0077 as a
// systemd unit).
func TestDirectoriesLetQEMUThrough(t *testing.T) {
	c := Config{StateDir: filepath.Join(t.TempDir(), "state"), RunDir: filepath.Join(t.TempDir(), "run"), Layers: new(gatewaytest.Layers), Checkpoints: new(gatewaytest.Checkpoints)}
	for _, dir := range []string{c.diskDir(), c.imageDir(), c.consoleDir(), c.keyDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := New(c); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]os.FileMode{
		c.StateDir: 0o711, c.imageDir(): 0o711, c.diskDir(): 0o711, c.logDir(): 0o711, c.consoleDir(): 0o711, c.keyDir(): 0o700,
	} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", dir, info.Mode().Perm(), err, want)
		}
	}
}

// The daemon needs no change to the directory that a build makes: it may be read-only.
func TestImagesMayBeReadOnly(t *testing.T) {
	c := Config{StateDir: filepath.Join(t.TempDir(), "state"), RunDir: filepath.Join(t.TempDir(), "run"), Layers: new(gatewaytest.Layers), Checkpoints: new(gatewaytest.Checkpoints)}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // Build makes the directory and no more
	err := image.Build(ctx, image.Recipe{Name: image.Default, Dir: c.imageDir()})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Build: %v", err)
	}
	for _, flags := range []uintptr{syscall.MS_BIND, syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY} {
		if err := syscall.Mount(c.imageDir(), c.imageDir(), "", flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = syscall.Unmount(c.imageDir(), syscall.MNT_DETACH) }) // the namespace ends anyway
	if _, err := New(c); err != nil {
		t.Errorf("New: %v", err)
	}
}

// The first try is immediate, and further ones are ever rarer. After a long success the next try is
// immediate again.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		var tries []time.Duration
		begun := time.Now()
		for time.Since(begun) < 10*time.Minute {
			again, err := p.spaced(func() error {
				tries = append(tries, time.Since(begun))
				return io.EOF
			})
			if again <= 0 || again > maxPace || err != nil && !errors.Is(err, io.EOF) {
				t.Fatalf("again in %s, %v", again, err)
			}
			time.Sleep(again) //nolint:forbidigo // no time passes in a bubble
		}
		want := "[0s 1s 3s 7s 15s 31s 1m3s 2m7s 4m7s 6m7s 8m7s]"
		if got := fmt.Sprint(tries); got != want {
			t.Errorf("tried at %s, want %s", got, want)
		}
		time.Sleep(paceReset) //nolint:forbidigo // no time passes in a bubble
		if again, _ := p.spaced(func() error { return nil }); again != time.Second {
			t.Errorf("after a good while, again in %s", again)
		}
	})
}

func TestFullDiskIsSaid(t *testing.T) {
	err := explainFull(fmt.Errorf("make disk: %w", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}), "/disks")
	e, ok := errors.AsType[*gateway.Error](err)
	if !ok || e.Kind != gateway.KindNoSpace || !strings.Contains(e.Hint, "df -h /disks") {
		t.Errorf("%v (%+v)", err, e)
	}
	if explainFull(nil, "/disks") != nil {
		t.Error("got an error without one")
	}
}

// A followed log continues across a rotation, from before its file exists until the VM is removed.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	there := make(chan bool, 1)
	gone := false
	log := &follower{path: path, there: func() bool {
		select {
		case gone = <-there:
		default:
		}
		return !gone
	}}
	defer func() { _ = log.Close() }() // it was only read
	expect := func(want string) {
		t.Helper()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(log, got); err != nil || string(got) != want {
			t.Fatalf("read %q, %v; want %q", got, err, want)
		}
	}
	time.AfterFunc(2*followEvery, func() { appendTo(t, path, "one") })
	expect("one")
	appendTo(t, path, "two")
	if err := os.Rename(path, path+".0"); err != nil {
		t.Fatal(err)
	}
	appendTo(t, path, "three")
	expect("twothree")
	there <- true
	if rest, err := io.ReadAll(log); err != nil || len(rest) > 0 {
		t.Errorf("of a VM that is gone: %q, %v", rest, err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := f.WriteString(text); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestGreets(t *testing.T) {
	for name, tt := range map[string]struct {
		banner string
		want   bool
	}{
		"ssh": {"SSH-2.0-OpenSSH_10.0\r\n", true}, "other": {"220 smtp\r\n", false}, "hangs up": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp4", "127.0.0.1:0") //nolint:noctx // loopback
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }() // the test is over
			go func() {
				if c, err := l.Accept(); err == nil {
					_, _ = io.WriteString(c, tt.banner) // the dialer may be gone
					_ = c.Close()                       // as above
				}
			}()
			if got := greets(t.Context(), l.Addr().String()); got != tt.want {
				t.Errorf("greets: %v, want %v", got, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if greets(ctx, "127.0.0.1:1") {
		t.Error("greets returned true after its context had ended")
	}
}
