package libvirt_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/vmhost/libvirt"
	"lodge/vmhost/libvirt/libvirttest"
)

func TestKill(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	client := newClient(t, time.Minute)
	def := tinyGuest(t)
	if err := client.Start(t.Context(), def); err != nil {
		t.Fatal(err)
	}
	waitLog(t, def.Log, libvirttest.Greeting)
	for range 2 { // the second time there is nothing left to do
		if err := client.Kill(t.Context(), def.VM.ID); err != nil {
			t.Fatal(err)
		}
		wantState(t, client, def.VM.ID, libvirt.Off)
	}
}

// The file with the process id of an earlier QEMU may be left, and the id be another program's by now.
func TestKillSparesOtherProcesses(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	client := newClient(t, time.Minute)
	id := gateway.NewID()
	other := exec.CommandContext(t.Context(), "cat", "guest="+libvirt.DomainName(gateway.NewID())+",", "-")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Ping(t.Context()); err != nil { // it has made its directory
		t.Fatal(err)
	}
	file := filepath.Join("/run/libvirt/qemu", libvirt.DomainName(id)+".pid")
	if err := os.WriteFile(file, fmt.Append(nil, other.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := client.Kill(t.Context(), id); err != nil {
		t.Error(err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := other.Wait(); err == nil || other.ProcessState.ExitCode() != 1 { // cat has not found its first file
		t.Errorf("the other process ended by %v", other.ProcessState)
	}
}
