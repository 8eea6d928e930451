package libvirt_test

import (
	"os"
	"path/filepath"
	"testing"

	"lodge/vmhost/libvirt/libvirttest"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
)

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
	for _, name := range []string{"disk", "direct", "template", "overlay", "chain", "reader", "adopted"} {
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
