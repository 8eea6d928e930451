package libvirt_test

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/libvirt/libvirttest"
)

var withVMs = flag.Bool("vm", false, "run the tests that need libvirtd and QEMU")

func TestMain(m *testing.M) { libvirttest.Main(m) }

func needVMs(t *testing.T) {
	t.Helper()
	if !*withVMs {
		t.Skip("needs libvirtd and QEMU: run with -vm")
	}
}

func TestErrorOfAbsentLibvirtdHasAHint(t *testing.T) {
	client := libvirt.New(libvirt.Config{Socket: filepath.Join(t.TempDir(), "nobody")})
	_, err := client.Ping(t.Context())
	wantUnavailable(t, err, "systemctl start libvirtd")
}

// A libvirtd that accepts and never answers must not hold a call beyond its deadline.
func TestSilentLibvirtd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // the test is over
	client := libvirt.New(libvirt.Config{Socket: path, CallTimeout: 50 * time.Millisecond})
	_, err = client.Ping(t.Context())
	wantUnavailable(t, err, "restart libvirtd")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Ping of a caller that gave up: %v, want context.Canceled", err)
	}
}

func TestDeadlineDropsAndReplaces(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	client := newClient(t, 300*time.Millisecond)
	if _, err := client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	daemon.Freeze(t)
	_, err := client.Ping(t.Context())
	wantUnavailable(t, err, "restart libvirtd")
	daemon.Thaw(t)
	gatewaytest.WaitFor(t, "the calls work again", func() bool {
		_, err := client.Ping(t.Context())
		return err == nil
	})
}

func TestKilledMidCall(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	client := newClient(t, time.Minute)
	if _, err := client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	daemon.Freeze(t) // so that the call is under way for sure
	failed := make(chan error, 1)
	go func() {
		_, err := client.Ping(context.WithoutCancel(t.Context()))
		failed <- err
	}()
	select {
	case err := <-failed:
		t.Fatalf("Ping of a frozen libvirtd returned %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	daemon.Kill()
	wantUnavailable(t, <-failed, "systemctl start libvirtd")
	_, err := client.Ping(t.Context())
	wantUnavailable(t, err, "systemctl start libvirtd")
	daemon.Again(t)
	if _, err := client.Ping(t.Context()); err != nil {
		t.Errorf("after libvirtd was started again: %v", err)
	}
}

func TestChangesComeAfterEveryReconnect(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	client := newClient(t, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = client.Run(ctx) }) // it returns nil
	waitChange(t, client)
	daemon.Kill()
	daemon.Again(t)
	waitChange(t, client)

	def := tinyGuest(t)
	if err := client.Start(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	waitChange(t, client)
}

// The life of a domain: power button, poweroff from inside, forced stop, death of QEMU.
func TestDomainLife(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	client := newClient(t, time.Minute)
	def := tinyGuest(t)
	id := def.VM.ID
	wantState(t, client, id, libvirt.Absent)

	start := func() {
		t.Helper()
		if err := client.Start(t.Context(), def); err != nil {
			t.Fatal(err)
		}
		wantState(t, client, id, libvirt.Running)
	}
	start()
	waitLog(t, def.Log, libvirttest.Greeting)
	if err := client.Shutdown(t.Context(), id, true); err != nil {
		t.Fatal(err)
	}
	wantState(t, client, id, libvirt.PoweredOff)

	start() // over a definition that was left
	waitLog(t, def.Log, libvirttest.Greeting+libvirttest.Greeting)
	daemon.Kill()
	daemon.Again(t)
	wantState(t, client, id, libvirt.Running)
	console := dialConsole(t, def.Console)
	if _, err := console.Write([]byte(libvirttest.KeyReset)); err != nil {
		t.Fatal(err)
	}
	waitLog(t, def.Log, strings.Repeat(libvirttest.Greeting, 3))
	wantState(t, client, id, libvirt.Running)
	if _, err := console.Write([]byte(libvirttest.KeyPowerOff)); err != nil {
		t.Fatal(err)
	}
	wantState(t, client, id, libvirt.PoweredOff)

	start()
	if err := client.Destroy(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wantState(t, client, id, libvirt.Off)
	ids, err := client.List(t.Context())
	if err != nil || len(ids) != 1 || ids[0] != id {
		t.Errorf("List: %v, %v, want just %v", ids, err, id)
	}
	for range 2 { // the second time there is nothing left to do
		if err := errors.Join(client.Destroy(t.Context(), id), client.Undefine(t.Context(), id)); err != nil {
			t.Error(err)
		}
	}
	wantState(t, client, id, libvirt.Absent)
}

func TestQEMUKilled(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	client := newClient(t, time.Minute)
	def := tinyGuest(t)
	if err := client.Start(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/run/libvirt/qemu/" + libvirt.DomainName(def.VM.ID) + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "kill", "-9", strings.TrimSpace(string(text)))
	wantState(t, client, def.VM.ID, libvirt.Off)
}

// A guest that panics is restarted by libvirtd. Meanwhile its domain has not ended: it is running, or
// paused for the moment between QEMU's two events, the stop and the panic.
func TestGuestPanics(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	client := newClient(t, time.Minute)
	def := tinyGuest(t)
	if err := client.Start(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	waitLog(t, def.Log, libvirttest.Greeting)
	console := dialConsole(t, def.Console)
	if _, err := console.Write([]byte(libvirttest.KeyPanic)); err != nil {
		t.Fatal(err)
	}
	gatewaytest.WaitFor(t, "the guest has restarted", func() bool {
		if state, err := client.State(t.Context(), def.VM.ID); err != nil || state != libvirt.Running && state != libvirt.Paused {
			t.Errorf("the state is %s (%v)", state, err)
		}
		log, err := os.ReadFile(def.Log)
		return err == nil && strings.Count(string(log), libvirttest.Greeting) == 2
	})
	wantState(t, client, def.VM.ID, libvirt.Running)
}

func TestStartFailsCleanly(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	client := newClient(t, time.Minute)
	def := tinyGuest(t)
	def.Disks[0].File += ".missing"
	err := client.Start(t.Context(), def)
	if gateway.KindOf(err) != gateway.KindInternal || !strings.Contains(err.Error(), "missing") {
		t.Errorf("Start without its disk: %v", err)
	}
	wantState(t, client, def.VM.ID, libvirt.Absent)
}

// Where QEMU's user cannot open /dev/kvm, libvirtd examines QEMU at each start, which takes 20 s
// and more: Start waits for it.
func TestStartWhereKVMIsClosed(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	libvirttest.CloseKVM(t)
	client := newClient(t, time.Second) // of other calls
	def := tinyGuest(t)
	begun := time.Now()
	if err := client.Start(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	t.Logf("started after %s", time.Since(begun).Round(time.Millisecond))
	wantState(t, client, def.VM.ID, libvirt.Running)
}

func newClient(t *testing.T, timeout time.Duration) *libvirt.Client {
	t.Helper()
	client := libvirt.New(libvirt.Config{CallTimeout: timeout})
	t.Cleanup(client.Close)
	return client
}

// tinyGuest defines a guest that is one boot sector, and makes its tap.
func tinyGuest(t *testing.T) libvirt.Definition {
	t.Helper()
	dir := openDir(t)
	vm := gateway.Identity{ID: gateway.NewID(), Number: 7, Name: "tiny", Addr: netip.MustParseAddr("10.213.0.7")}
	run(t, "ip", "tuntap", "add", vm.Tap(), "mode", "tap")
	t.Cleanup(func() { run(t, "ip", "link", "del", vm.Tap()) })
	def := libvirt.Definition{
		VM: vm, CPUs: 1, MemoryMiB: 64, Disks: []libvirt.Disk{{File: filepath.Join(dir, "disk"), Format: gateway.Raw}},
		Console: filepath.Join(dir, "console"), Log: filepath.Join(dir, "log"),
	}
	libvirttest.TinyDisk(t, def.Disks[0].File)
	return def
}

// openDir is a directory with a short name that QEMU, which is not root, may pass through.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "lv") //nolint:usetesting // other users cannot pass through t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // what is left does no harm
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil { //nolint:noctx // also used in cleanups
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

func dialConsole(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the guest may be gone
	return c
}

func waitChange(t *testing.T, client *libvirt.Client) {
	t.Helper()
	select {
	case <-client.Changes():
	case <-time.After(30 * time.Second):
		t.Fatal("no change was reported")
	}
}

func waitLog(t *testing.T, file, want string) {
	t.Helper()
	gatewaytest.WaitFor(t, "the console has "+want, func() bool {
		text, _ := os.ReadFile(file) // empty until there is a file
		return string(text) == want
	})
}

func wantState(t *testing.T, client *libvirt.Client, id gateway.ID, want libvirt.State) {
	t.Helper()
	var state libvirt.State
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("the state is %s (%v)", state, err)
		}
	}()
	gatewaytest.WaitFor(t, "the domain is "+string(want), func() bool {
		state, err = client.State(t.Context(), id)
		return err == nil && state == want
	})
}

func wantUnavailable(t *testing.T, err error, hint string) {
	t.Helper()
	e, ok := errors.AsType[*gateway.Error](err)
	if !ok || e.Kind != gateway.KindUnavailable || !strings.Contains(e.Hint, hint) {
		t.Errorf("got %v (%#v), want KindUnavailable with a hint about %q", err, e, hint)
	}
}
