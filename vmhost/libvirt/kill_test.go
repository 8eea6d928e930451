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

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
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

// Start has libvirtd check no definition against its schema, which takes it longer than all else about a
// definition: what a definition may contain is checked here.
func TestDefinitionsAreValid(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	l := rpc.NewWithDialer(dialers.NewLocal(dialers.WithSocket(libvirttest.Socket)))
	if err := l.ConnectToURI(rpc.QEMUSystem); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Disconnect() }() // the daemon ends with the test
	for _, name := range []string{"disk", "direct", "template", "overlay", "chain", "reader"} {
		text, err := os.ReadFile(filepath.Join("testdata", name+".xml"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.DomainDefineXMLFlags(string(text), rpc.DomainDefineValidate)
		if err == nil {
			err = l.DomainUndefine(d)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
