package harness

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
)

// VM is one of a Host's VMs, by name.
type VM struct {
	Name string
	host *Host
}

// VM does not check that the VM exists.
func (h *Host) VM(name string) *VM { return &VM{Name: name, host: h} }

// Info is the answer of lodge show.
func (v *VM) Info(t testing.TB) api.VM {
	t.Helper()
	return JSON[api.VM](t, v.host, "show", v.Name)
}

// Identity is the VM's identity on the host. Its tap is the interface of the host's route to its
// address.
func (v *VM) Identity(t testing.TB) gateway.Identity {
	t.Helper()
	info := v.Info(t)
	route := v.host.Run(t, nil, "ip", "-o", "route", "show", info.Addr.String()).Stdout
	_, dev, _ := strings.Cut(route, " dev lg")
	number, err := strconv.ParseUint(dev[:min(len(dev), 8)], 16, 32)
	if err != nil {
		t.Fatalf("%s has no tap: its route is %q", v.Name, route)
	}
	return gateway.Identity{ID: info.ID, Number: uint32(number), Name: info.Name, Addr: info.Addr}
}

// Run runs a bash script in the guest as its login user, and returns its stdout. The test fails if
// any of its commands does.
func (v *VM) Run(t testing.TB, script string) string {
	t.Helper()
	r := v.Try(t, script)
	if r.Code != 0 {
		t.Fatalf("in %s, this ended with %d:\n%s\n--- output:\n%s", v.Name, r.Code, script, r.Text())
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Try runs a bash script in the guest that may fail.
func (v *VM) Try(t testing.TB, script string) Result {
	t.Helper()
	return v.ssh(t, strings.NewReader("set -euo pipefail\n"+script), "bash", "-s")
}

// Put writes a file in the guest, with its directories.
func (v *VM) Put(t testing.TB, path string, content io.Reader, mode string) {
	t.Helper()
	r := v.ssh(t, content, "mkdir -p $(dirname "+path+") && cat >"+path+" && chmod "+mode+" "+path)
	if r.Code != 0 {
		t.Fatalf("write %s in %s: %s", path, v.Name, r.Text())
	}
}

// PutFile copies a file of the machine into the guest.
func (v *VM) PutFile(t testing.TB, path, from, mode string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	v.Put(t, path, bytes.NewReader(content), mode)
}

// BootID changes with every boot of the guest.
func (v *VM) BootID(t testing.TB) string {
	t.Helper()
	return v.Run(t, "cat /proc/sys/kernel/random/boot_id")
}

// Stop stops the VM.
func (v *VM) Stop(t testing.TB) {
	t.Helper()
	v.Disconnect()
	v.host.Lodge(t, "stop", v.Name)
}

// Remove removes the VM if it exists. It can be called in a test's cleanup.
func (v *VM) Remove() {
	t := v.host.owner // whose context lasts longer
	t.Helper()
	v.Disconnect()
	if r := v.host.TryLodge(t, "show", v.Name); r.Code == 0 {
		v.host.Lodge(t, "rm", "--yes", v.Name)
	}
}
