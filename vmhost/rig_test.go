package vmhost_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost"
	"lodge/vmhost/accel"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/libvirt/libvirttest"
	"lodge/vmhost/netid"
)

var withVMs = flag.Bool("vm", false, "run the tests that need libvirtd and QEMU")

func TestMain(m *testing.M) { libvirttest.Main(m) }

func needVMs(t *testing.T) {
	t.Helper()
	if !*withVMs {
		t.Skip("needs libvirtd and QEMU: run with -vm")
	}
}

// rig is a state directory with a tiny image, and the daemons that run over it one after the other.
type rig struct {
	config  vmhost.Config
	records *records
	host    *vmhost.Host
	stop    func()       // ends the daemon that runs now
	removed []gateway.ID // in calls of OnRemove
}

// newRig prepares a state directory under parent and runs a daemon over it.
func newRig(t *testing.T, parent string) *rig {
	t.Helper()
	state := filepath.Join(openDir(t, parent), "state")
	tinyImage(t, filepath.Join(state, "images"))
	r := &rig{records: &records{all: map[gateway.ID]gateway.VM{}}}
	r.config = vmhost.Config{
		StateDir: state, RunDir: openDir(t, "/var/tmp"), Domain: "lodge.localhost", Accel: accel.TCG,
		Layers: new(gatewaytest.Layers), Checkpoints: new(gatewaytest.Checkpoints),
		Defaults: gateway.Size{Image: "tiny", CPUs: 1, MemoryMiB: 128, DiskGiB: 2}, StopTimeout: 20 * time.Second,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	r.config.OnRemove = []func(context.Context, gateway.ID) error{func(_ context.Context, id gateway.ID) error {
		r.removed = append(r.removed, id)
		return nil
	}}
	r.run(t)
	t.Cleanup(func() { r.stop() })
	return r
}

// openDir makes a directory that has a short name, for the sockets, and is open to QEMU, unlike
// t.TempDir.
func openDir(t *testing.T, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "lv") //nolint:usetesting // as above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // only litter
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run starts a daemon over the state of the one before.
func (r *rig) run(t *testing.T) {
	t.Helper()
	dir, err := gateway.OpenDirectory(t.Context(), r.records)
	if err != nil {
		t.Fatal(err)
	}
	taps := gateway.NewTapListeners()
	taps.Listener(80)
	c := r.config
	c.Directory, c.TapListeners = dir, taps
	c.Net = netid.New(netid.Config{Net: netip.MustParsePrefix("10.213.0.0/16"), TCP: []uint16{80}, Logger: c.Logger})
	host, err := vmhost.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- host.Run(ctx) }()
	r.host, r.config.Directory = host, dir
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		taps.Shutdown()
	})
}

// restart ends the daemon and starts another.
func (r *rig) restart(t *testing.T) {
	t.Helper()
	r.stop()
	r.run(t)
}

func (r *rig) make(t *testing.T, name string) gateway.VM {
	t.Helper()
	m, err := r.host.New(t.Context(), gateway.Spec{Name: name}, func(gateway.Progress) {})
	if err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
	r.wantState(t, m.ID, "running")
	r.waitGreetings(t, m.ID, 1)
	return m
}

func (r *rig) machine(t *testing.T, id gateway.ID) gateway.VM {
	t.Helper()
	m, ok := r.config.Directory.ByID(id)
	if !ok {
		t.Fatal("the VM is gone")
	}
	return m
}

// press types keys at the VM's console.
func (r *rig) press(t *testing.T, id gateway.ID, keys string) {
	t.Helper()
	c, err := r.host.Console(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }() // the guest may be gone by then
	if _, err := c.Write([]byte(keys)); err != nil {
		t.Fatal(err)
	}
	if keys == libvirttest.KeyDeaf {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *rig) wantState(t *testing.T, id gateway.ID, want string) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		if got := r.host.Status(t.Context(), id); got.State != want {
			return fmt.Errorf("the VM is %s (%s), want %s", got.State, got.Reason, want)
		}
		return nil
	})
}

// waitGreetings waits until the VM's guest has started n times.
func (r *rig) waitGreetings(t *testing.T, id gateway.ID, n int) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		text, _ := os.ReadFile(filepath.Join(r.config.StateDir, "console", id.String()+".log")) // absent is empty
		if got := strings.Count(string(text), libvirttest.Greeting); got != n {
			return fmt.Errorf("the guest has started %d times, want %d", got, n)
		}
		return nil
	})
}

// wantLog waits until the VM's console log is exactly want.
func (r *rig) wantLog(t *testing.T, id gateway.ID, want string) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		text, _ := os.ReadFile(filepath.Join(r.config.StateDir, "console", id.String()+".log")) // absent is empty
		if string(text) != want {
			return fmt.Errorf("the console has %q, want %q", text, want)
		}
		return nil
	})
}

// open lets QEMU, which is not root, pass through the directories that t.TempDir has made.
func open(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// pid is the process id of the VM's QEMU.
func pid(t *testing.T, id gateway.ID) int {
	t.Helper()
	text, err := os.ReadFile("/run/libvirt/qemu/" + libvirt.DomainName(id) + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wantNothing checks that no trace of any VM is left.
func (r *rig) wantNothing(t *testing.T) {
	t.Helper()
	if all := r.config.Directory.All(); len(all) != 0 {
		t.Errorf("the directory still has %v", all)
	}
	c := r.config
	for _, dir := range []string{filepath.Join(c.StateDir, "disks"), filepath.Join(c.StateDir, "memory"), filepath.Join(c.StateDir, "console"), filepath.Join(c.RunDir, "console")} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 0 {
			t.Errorf("%s still has %v (%v)", dir, entries, err)
		}
	}
	taps, err := filepath.Glob("/sys/class/net/lg*")
	if err != nil || len(taps) != 0 {
		t.Errorf("taps are left: %v (%v)", taps, err)
	}
}

// tinyImage writes an image whose disk is the tiny guest.
func tinyImage(t *testing.T, dir string) {
	t.Helper()
	libvirttest.TinyDisk(t, filepath.Join(dir, "tiny.raw"))
	type part struct {
		File  string `json:"file"`
		Bytes int    `json:"bytes"`
	}
	manifest := map[string]any{"name": "tiny", "disk": part{"tiny.raw", 1 << 20}}
	for _, name := range []string{"kernel", "initrd"} {
		manifest[name] = part{"tiny." + name, 4}
		write(t, filepath.Join(dir, "tiny."+name), []byte("none"))
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "tiny.json"), text)
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// records keeps machines in memory; it outlives the daemon as the real store's file does.
type records struct {
	mu   sync.Mutex
	all  map[gateway.ID]gateway.VM
	last uint32
}

func (r *records) VMs(context.Context) ([]gateway.VM, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.all)), nil
}

func (r *records) Create(_ context.Context, m gateway.VM) (gateway.VM, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	m.Number, m.Addr = r.last, netip.AddrFrom4([4]byte{10, 213, 0, byte(r.last + 1)})
	r.all[m.ID] = m
	return m, nil
}

func (r *records) Save(_ context.Context, m gateway.VM) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.all[m.ID]; !ok {
		return errors.New("no such machine")
	}
	r.all[m.ID] = m
	return nil
}

func (r *records) Delete(_ context.Context, id gateway.ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, id)
	return nil
}
