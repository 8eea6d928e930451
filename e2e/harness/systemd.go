package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Unit is a lodged that systemd runs by the unit of packaging. The systemd is a user's, since that
// needs no pid 1; the unit's sandbox, which such a systemd cannot set up, is left out.
type Unit struct {
	h      *Host
	env    []string
	cgroup string // of systemd
}

// startSystemd runs in the cgroup $1, and as the root of a cgroup namespace. It fills the sandbox's
// /run as a system that runs systemd does.
const startSystemd = `set -e
echo $$ >"$1/cgroup.procs"
mkdir -p "$XDG_RUNTIME_DIR" /run/systemd/system
exec unshare --cgroup --mount sh -ec 'mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec /lib/systemd/systemd --user --unit=default.target'`

// StartUnit starts systemd and lodged, and waits until it is ready. Both end with the test.
func (h *Host) StartUnit(t testing.TB) *Unit {
	t.Helper()
	units := filepath.Join(h.Dir, "units")
	u := &Unit{h: h, env: append(h.env(), "XDG_RUNTIME_DIR="+filepath.Join(h.Dir, "xdg"), "SYSTEMD_UNIT_PATH="+units,
		"SYSTEMD_GENERATOR_PATH="+units, "SYSTEMD_ENVIRONMENT_GENERATOR_PATH="+units)}
	u.write(t, units)
	u.makeCgroup(t)
	cmd := exec.Command("sh", "-c", startSystemd, "sh", u.cgroup) //nolint:noctx // ended by the cleanup
	cmd.Env = u.env
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(u.cgroup, "cgroup.kill"), []byte("1"), 0o600); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("systemd:\n%s", out)
		}
	})
	Eventually(t, "systemd answers", time.Minute, func() error { return u.systemctl(t, "is-system-running", "--wait") })
	if err := u.systemctl(t, "start", "lodged.service"); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "lodged is ready", time.Minute, func() error { return h.Health(t.Context()) })
	return u
}

// write writes the unit, and the targets that it and systemd need, for the Host.
func (u *Unit) write(t testing.TB, dir string) {
	t.Helper()
	text, err := os.ReadFile("../packaging/lodged.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := regexp.MustCompile(`(?s)\n# Permitted:.*\n\[Install\]`).ReplaceAllString(string(text), "\n[Install]")
	exe := filepath.Join(Programs(t, u.h.Race), "lodged")
	unit = regexp.MustCompile(`(?m)^ExecStart=.*`).ReplaceAllLiteralString(unit, fmt.Sprintf(
		"ExecStart=%s -config %s -state-dir %s -run-dir %s\nStandardOutput=append:%s\nStandardError=inherit",
		exe, u.h.config(t), u.h.StateDir, u.h.RunDir, filepath.Join(u.h.Dir, "lodged.log")))
	files := map[string]string{"lodged.service": unit}
	for _, target := range []string{"default", "basic", "sysinit", "shutdown", "network", "exit"} {
		files[target+".target"] = "[Unit]\nDefaultDependencies=no\n"
	}
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // systemd's directories have this mode
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // as above
			t.Fatal(err)
		}
	}
}

// makeCgroup makes a cgroup for systemd, which is removed with all that systemd makes in it.
func (u *Unit) makeCgroup(t testing.TB) {
	t.Helper()
	root := filepath.Join(u.h.Dir, "cgroup")
	if err := errors.Join(os.Mkdir(root, 0o755), syscall.Mount("cgroup2", root, "cgroup2", 0, "")); err != nil { //nolint:gosec // a mount point
		t.Fatal(err)
	}
	u.cgroup = filepath.Join(root, filepath.Base(u.h.Dir))
	t.Cleanup(func() {
		Eventually(t, "the cgroups are removed", 20*time.Second, func() error { return removeCgroups(u.cgroup) })
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(u.cgroup, 0o755); err != nil { //nolint:gosec // cgroups have this mode
		t.Fatal(err)
	}
}

// removeCgroups removes a cgroup and those below it.
func removeCgroups(root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for _, dir := range slices.Backward(dirs) {
		err = errors.Join(err, syscall.Rmdir(dir))
	}
	return err
}

// Restart restarts lodged, as an upgrade does, and waits until systemd counts it as ready.
func (u *Unit) Restart(t testing.TB) {
	t.Helper()
	if err := u.systemctl(t, "restart", "lodged.service"); err != nil {
		t.Fatal(err)
	}
}

// Stop stops lodged.
func (u *Unit) Stop(t testing.TB) {
	t.Helper()
	if err := u.systemctl(t, "stop", "lodged.service"); err != nil {
		t.Fatal(err)
	}
}

// Kill ends lodged as kill -9 does. systemd starts it again.
func (u *Unit) Kill(t testing.TB) {
	t.Helper()
	if err := u.systemctl(t, "kill", "--signal=KILL", "lodged.service"); err != nil {
		t.Fatal(err)
	}
}

func (u *Unit) systemctl(t testing.TB, args ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", append([]string{"--user"}, args...)...) //nolint:gosec // the tests' own arguments
	cmd.Env = u.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
