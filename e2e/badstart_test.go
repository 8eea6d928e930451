package e2e

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to make a database that a newer Lodge could have written

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/api"
)

// refusesToStart starts a lodged that must end by itself, with an error that contains all of parts.
func refusesToStart(t *testing.T, h *harness.Host, parts ...string) {
	t.Helper()
	d := h.LaunchDaemon(t)
	if err := d.Ended(t, time.Minute); err == nil {
		t.Errorf("lodged ended without an error:\n%s", d.Log())
	}
	contains(t, "the log of lodged", d.Log(), parts...)
}

func TestErrorWithoutDaemonHasAHint(t *testing.T) {
	h := harness.New(t)
	for _, verb := range [][]string{{"ls"}, {"new", "alpha"}, {"show", "alpha"}, {"mail", "alpha"}, {"open", "alpha"}, {"s3", "ls", "alpha"}} {
		r := h.TryLodge(t, verb...)
		if r.Code != 3 || !strings.Contains(r.Stderr, "lodged is not running") || !strings.Contains(r.Stderr, "hint: ") {
			t.Errorf("lodge %s: %d %s", strings.Join(verb, " "), r.Code, r.Text())
		}
	}
}

func TestSecondDaemonOnOneStateDirectory(t *testing.T) {
	h := harness.New(t)
	first := h.StartDaemon(t)
	refusesToStart(t, h, fmt.Sprintf("another lodged (process %d)", first.PID()))
	if err := h.Health(t.Context()); err != nil {
		t.Errorf("the first lodged, afterwards: %v", err)
	}
}

func TestPortTakenNamesTheProcess(t *testing.T) {
	for _, port := range []string{"443", "80", "25"} {
		t.Run(port, func(t *testing.T) {
			h := harness.New(t)
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			refusesToStart(t, h, "port "+port, fmt.Sprintf("(process %d)", os.Getpid()))
		})
	}
}

func TestCorruptDatabaseIsRefusedAndLeftAlone(t *testing.T) {
	h := harness.New(t)
	database := filepath.Join(h.StateDir, "lodge.db")
	if err := os.WriteFile(database, []byte(strings.Repeat("this is no database ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	before := checksum(t, database)
	refusesToStart(t, h, "lodge.db")
	if checksum(t, database) != before {
		t.Error("the database was changed")
	}
}

func TestNewerDatabaseIsRefusedAndLeftAlone(t *testing.T) {
	h := harness.New(t)
	h.StartDaemon(t).Stop(t)
	database := filepath.Join(h.StateDir, "lodge.db")
	db, err := sql.Open("sqlite", database)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "PRAGMA user_version = 9999"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before := checksum(t, database)
	refusesToStart(t, h, "newer")
	if checksum(t, database) != before {
		t.Error("the database was changed")
	}
}

func checksum(t *testing.T, file string) [32]byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(content)
}

func TestDaemonNeedsRoot(t *testing.T) {
	h := harness.New(t)
	if err := os.Chmod(h.Dir, 0o755); err != nil { //nolint:gosec // the user nobody has to pass through
		t.Fatal(err)
	}
	r := h.Run(t, nil, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		filepath.Join(harness.Programs(t, false), "lodged"), "-state-dir", h.StateDir, "-run-dir", h.RunDir)
	if r.Code == 0 || !strings.Contains(r.Stderr, "root") || !strings.Contains(r.Stderr, "sudo") {
		t.Errorf("lodged as nobody: %d %s", r.Code, r.Text())
	}
}

func TestStartSurvivesKillAtAnyMoment(t *testing.T) {
	h := harness.New(t)
	for wait := time.Duration(0); wait < 500*time.Millisecond; wait += 40 * time.Millisecond {
		d := h.LaunchDaemon(t)
		<-time.After(wait) // each row kills it at another moment
		d.Kill(t)
	}
	h.StartDaemon(t)
}

func TestBadNames(t *testing.T) {
	h := harness.New(t)
	h.StartDaemon(t)
	for _, name := range []string{
		"", strings.Repeat("a", 64), strings.Repeat("a", 300), "Alpha", "1alpha", "..", ".", "a..b", "a.b", "a_b", "-a", "a-", "a--b", "a b", "ä", "a/b",
		"s3", "www", "mail", "smtp", "imap", "lodge",
	} {
		if r := h.TryLodge(t, "new", "--", name); r.Code != 2 || !strings.Contains(r.Stderr, "hint: ") {
			t.Errorf("lodge new %q: %d %s", name, r.Code, r.Text())
		}
		// The daemon checks the name as well.
		_, err := h.Client().New(t.Context(), gateway.Spec{Name: name}, func(gateway.Progress) {})
		if gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("a VM called %q: %v", name, err)
		}
		if r := h.TryLodge(t, "show", "--", name); r.Code == 0 {
			t.Errorf("lodge show %q: %s", name, r.Text())
		}
	}
	leavesNothing(t, h)
}

// leavesNothing fails when there is a VM or a part of one.
func leavesNothing(t *testing.T, h *harness.Host) {
	t.Helper()
	if all := harness.JSON[[]api.VM](t, h, "ls"); len(all) != 0 {
		t.Errorf("there are VMs: %+v", all)
	}
	if left, err := os.ReadDir(filepath.Join(h.StateDir, "disks")); err != nil || len(left) != 0 {
		t.Errorf("in the directory of disks: %v, %v", left, err)
	}
	if r := h.Run(t, nil, "ip", "-o", "link", "show", "up"); strings.Contains(r.Stdout, ": lg") {
		t.Errorf("there are taps:\n%s", r.Stdout)
	}
}

func TestBadImages(t *testing.T) {
	h := harness.New(t)
	h.StartDaemon(t)
	images := filepath.Join(h.StateDir, "images")
	write := func(name, content string, size int64) {
		file := filepath.Join(images, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			if err := syscall.Truncate(file, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	part := func(file string, bytes int) string { return fmt.Sprintf(`{"file":%q,"bytes":%d}`, file, bytes) }
	for name, size := range map[string]int64{"short": 1 << 20, "noimage": 2 << 20} {
		write(name+".json", fmt.Sprintf(`{"name":%q,"cmdline":"ro","disk":%s,"kernel":%s,"initrd":%s}`, name,
			part(name+".raw", 2<<20), part(name+".vmlinuz", 4096), part(name+".initrd", 4096)), 0)
		write(name+".raw", "", size)
		write(name+".vmlinuz", "", 4096)
		write(name+".initrd", "", 4096)
	}
	write("garbage.json", "{", 0)
	for name, text := range map[string]string{
		"debian-13": "there is no image", "short": "bytes instead of", "noimage": "not a bootable disk", "garbage": "manifest", "../x": "not the name of an image",
	} {
		r := h.TryLodge(t, "new", "alpha", "--image", name)
		if r.Code == 0 || !strings.Contains(r.Stderr, text) || !strings.Contains(r.Stderr, "hint: ") {
			t.Errorf("a VM from the image %q: %d %s", name, r.Code, r.Text())
		}
	}
	leavesNothing(t, h)
}
