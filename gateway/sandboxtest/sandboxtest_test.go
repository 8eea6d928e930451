package sandboxtest_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/gateway/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m, sandboxtest.Tmpfs("/run/lodge")) }

func TestOnlyLoopback(t *testing.T) {
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 && i.Flags&net.FlagUp == 0 {
			t.Errorf("%s is down", i.Name)
		}
		if i.Flags&net.FlagLoopback == 0 && i.Flags&net.FlagUp != 0 {
			t.Errorf("%s is up: this is the machine's own namespace", i.Name)
		}
		if _, err := os.Stat("/sys/class/net/" + i.Name); err != nil {
			t.Errorf("/sys is another namespace's: %v", err)
		}
	}
	if _, err := net.Listen("tcp", "127.0.0.1:0"); err != nil { //nolint:noctx // loopback
		t.Errorf("lo does not work: %v", err)
	}
}

func TestTmpfsIsOurs(t *testing.T) {
	entries, err := os.ReadDir("/run/lodge")
	if err != nil || len(entries) != 0 {
		t.Errorf("/run/lodge: %v, %v; want it empty", entries, err)
	}
}

func TestPidOneIsOurs(t *testing.T) {
	exe, err := os.Readlink("/proc/1/exe")
	if err != nil || !strings.HasSuffix(exe, ".test") {
		t.Errorf("pid 1 is %q, %v; want this test", exe, err)
	}
}

// A daemon's pid must be released when it ends, or libvirt waits for ever.
func TestOrphansAreReaped(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "sleep 0.2 >&- & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		select {
		case <-tick.C:
		case <-time.After(10 * time.Second):
			t.Fatalf("orphan %d is still there", pid)
		}
	}
}

func TestSmallDiskIsSmall(t *testing.T) {
	dir := sandboxtest.SmallDisk(t, 1<<20)
	err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 2<<20), 0o600)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing 2 MiB: %v; want ENOSPC", err)
	}
}

// The fuzz engine starts workers and connects to them by descriptor 3: they must not start a
// sandbox of their own.
func FuzzWorkersRun(f *testing.F) {
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, s string) {
		if back, err := strconv.Unquote(strconv.Quote(s)); err != nil || back != s {
			t.Errorf("%q became %q, %v", s, back, err)
		}
	})
}
