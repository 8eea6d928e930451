package libvirt_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/libvirt/libvirttest"
)

// A memory that another program has saved, as libvirt-guests does at a shutdown of the host, is not
// lost.
func TestSavedMemoryIsKept(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	client := newClient(t, time.Minute)
	def := tinyGuest(t)
	id := def.VM.ID
	if err := client.Start(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	waitLog(t, def.Log, libvirttest.Greeting)
	run(t, "virsh", "managedsave", id.String())
	wantState(t, client, id, libvirt.Saved)
	daemon.Kill()
	daemon.Again(t)
	wantState(t, client, id, libvirt.Saved)
	if err := client.Restore(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	wantState(t, client, id, libvirt.Running)
	console := dialConsole(t, def.Console)
	if _, err := console.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	waitLog(t, def.Log, libvirttest.Greeting+"x") // it has not booted again
}

// define defines n domains that do not run.
func define(tb testing.TB, n int) []gateway.ID {
	tb.Helper()
	dir := tb.TempDir()
	var commands strings.Builder
	var ids []gateway.ID
	for i := range n {
		vm := gateway.Identity{ID: gateway.NewID(), Number: uint32(i + 1), Name: "tiny", Addr: netip.MustParseAddr("10.213.0.7")}
		text, err := libvirt.Definition{VM: vm, CPUs: 1, MemoryMiB: 64, Disks: []libvirt.Disk{{File: "/none", Format: gateway.Raw}}, Console: "/c", Log: "/l"}.XML()
		if err != nil {
			tb.Fatal(err)
		}
		file := filepath.Join(dir, vm.ID.String())
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		fmt.Fprintf(&commands, "define %s\n", file)
		ids = append(ids, vm.ID)
	}
	virsh := exec.CommandContext(tb.Context(), "virsh", "--quiet")
	virsh.Stdin = strings.NewReader(commands.String())
	if out, err := virsh.CombinedOutput(); err != nil {
		tb.Fatalf("virsh: %v\n%s", err, out)
	}
	return ids
}

func TestStatesOfAllAtOnce(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	client := newClient(t, time.Minute)
	def := tinyGuest(t)
	if states, err := client.States(t.Context()); err != nil || len(states) > 0 {
		t.Errorf("without a domain: %v, %v", states, err)
	}
	if err := client.Start(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	off := define(t, 2)
	want := map[gateway.ID]libvirt.State{def.VM.ID: libvirt.Running, off[0]: libvirt.Off, off[1]: libvirt.Off}
	if got, err := client.States(t.Context()); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	run(t, "virsh", "managedsave", def.VM.ID.String())
	want[def.VM.ID] = libvirt.Saved
	if got, err := client.States(t.Context()); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	daemon.Freeze(t)
	defer daemon.Thaw(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := client.States(ctx)
	wantUnavailable(t, err, "restart libvirtd")
}

// BenchmarkStates measures the call of lodge ls to libvirt, for 1,000 VMs.
func BenchmarkStates(b *testing.B) {
	if !*withVMs {
		b.Skip("needs libvirtd: run with -vm")
	}
	libvirttest.Start(b)
	define(b, 1000)
	client := libvirt.New(libvirt.Config{})
	defer client.Close()
	for b.Loop() {
		if states, err := client.States(b.Context()); err != nil || len(states) != 1000 {
			b.Fatalf("%d states, %v", len(states), err)
		}
	}
}
