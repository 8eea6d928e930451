// Package harness runs all of Lodge for tests: a real libvirtd, the built lodged and lodge, and
// VMs, all in the namespaces of lodge/gateway/sandboxtest, with state in a directory that is
// removed with the test.
//
//	func TestMain(m *testing.M) { harness.Main(m) }
//
//	h := harness.New(t)
//	h.StartLibvirt(t)
//	h.StartDaemon(t)
//	h.Lodge(t, "new", "alpha", "--wait")
//	t.Log(h.VM("alpha").Run(t, "uptime"))
//
// lodged has its default ports and domain: the namespace is its own. When a test fails, the logs of
// the daemon and the VMs' consoles are kept in e2e/artefacts.
//
// It never waits a fixed time, only for conditions, and ends no process that it did not start.
package harness

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/control"
	"lodge/gateway/sandboxtest"
	"lodge/vmhost/image"
	"lodge/vmhost/libvirt/libvirttest"
)

// Flags of test binaries that import this package.
var (
	withVMs = flag.Bool("vm", false, "run the tests that boot VMs")                                //nolint:gochecknoglobals // how package flag works
	images  = flag.String("images", gateway.DefaultStateDir+"/images", "directory of base images") //nolint:gochecknoglobals // as above
)

// Main runs the tests in a sandbox that hides the machine's own trust store, Lodge and libvirt.
func Main(m *testing.M) {
	sandboxtest.Main(m, sandboxtest.Tmpfs("/run", "/var/cache/libvirt", "/usr/local/share/ca-certificates", "/etc/ssl/certs"))
}

// NeedVMs skips the test without the flag -vm.
func NeedVMs(t testing.TB) {
	t.Helper()
	if !*withVMs {
		t.Skip("boots VMs: run it by make e2e, or with -args -vm")
	}
}

// Host is one Lodge: its directories, its processes.
type Host struct {
	Dir      string // all of its state; QEMU's user can pass through
	StateDir string
	RunDir   string
	Home     string // home of the user of lodge, curl and a browser
	Domain   string
	Args     []string // more flags for lodged
	Config   string   // lodged's configuration file
	Race     bool     // run a lodged that was built with the race detector

	owner testing.TB // the test that called New: each process ends with it, whichever step started it

	mu          sync.Mutex
	connections map[string]*connection // by the VM's name
}

// New makes the directories of a Host in dir, or in a new one.
func New(t testing.TB, dir ...string) *Host {
	t.Helper()
	root := ""
	if len(dir) > 0 {
		root = dir[0]
	} else {
		root = tempDir(t)
	}
	h := &Host{
		Dir: root, StateDir: filepath.Join(root, "lib"), RunDir: filepath.Join(root, "run"), Home: filepath.Join(root, "home"),
		Domain: "lodge.localhost", owner: t,
	}
	for _, dir := range []string{h.StateDir, h.RunDir, h.Home} {
		if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // QEMU's user passes through
			t.Fatal(err)
		}
	}
	t.Cleanup(h.disconnect)
	t.Cleanup(func() { h.keepArtefacts(t) })
	t.Cleanup(func() { h.checkLog(t) })
	return h
}

// tempDir is t.TempDir with a short name, for unix sockets, that other users can pass through.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lodge-") //nolint:usetesting // t.TempDir is 0700 and too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // QEMU's user passes through
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the host's directory: %v", err)
		}
	})
	return dir
}

// UseImages mounts the base images into the Host's state, read-only.
func (h *Host) UseImages(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(*images, gateway.DefaultImage+".json")); err != nil {
		t.Fatalf("there is no base image: make image (%v)", err)
	}
	dir := filepath.Join(h.StateDir, "images")
	if err := image.MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(*images, dir, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("bind %s: %v", *images, err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // the namespace ends anyway
	if err := syscall.Mount("", dir, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatalf("make %s read-only: %v", dir, err)
	}
}

// OwnPasswd mounts an /etc/passwd in which root has h.Home and no other user has a home, so that a
// program that changes users' homes changes that one.
func (h *Host) OwnPasswd(t testing.TB) {
	t.Helper()
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	var own strings.Builder
	for line := range strings.Lines(string(passwd)) {
		fields := strings.Split(line, ":")
		if len(fields) != 7 {
			continue
		}
		fields[5] = "/nonexistent"
		if fields[2] == "0" {
			fields[5] = h.Home
		}
		own.WriteString(strings.Join(fields, ":"))
	}
	h.Replace(t, "/etc/passwd", own.String())
}

// Replace mounts a file with other content over one of the machine's, until the test ends.
func (h *Host) Replace(t testing.TB, path, content string) {
	t.Helper()
	file := filepath.Join(h.Dir, filepath.Base(path))
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil { //nolint:gosec // as the real one
		t.Fatal(err)
	}
	if err := syscall.Mount(file, path, "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("bind %s: %v", path, err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) }) // the namespace ends anyway
}

// StartLibvirt starts virtlogd and libvirtd.
func (h *Host) StartLibvirt(t testing.TB) *libvirttest.Daemon {
	t.Helper()
	return libvirttest.Start(t)
}

// Client returns a client of lodged's API.
func (h *Host) Client() *control.Client {
	return control.NewClient(gateway.ControlSocket(h.RunDir))
}

// Health returns an error unless lodged is ready.
func (h *Host) Health(ctx context.Context) error {
	health, err := h.Client().Health(ctx)
	if err != nil {
		return err
	}
	if !health.Ready {
		return fmt.Errorf("not ready: %s", health.Reason)
	}
	return nil
}
