package libvirt

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"lodge/gateway/gatewaytest"
)

// The definition names the new file and its format, and leaves the seed alone.
func TestPivotXML(t *testing.T) {
	text, err := pivotXML("/var/lib/lodge/disks/a&b.qcow2", "/var/lib/lodge/memory/one")
	gatewaytest.Must(t, err)
	for _, want := range []string{
		` name="vda" snapshot="external">`, `<driver type="qcow2"></driver>`, `<source file="/var/lib/lodge/disks/a&amp;b.qcow2"></source>`, `<disk name="vdb" snapshot="no">`, `<memory snapshot="external" file="/var/lib/lodge/memory/one"></memory>`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// A layer below others belongs to root, and QEMU can only read it.
func TestSeal(t *testing.T) {
	group, err := user.LookupGroup(qemuUser)
	if err != nil {
		t.Skip("there is no QEMU here")
	}
	file := filepath.Join(t.TempDir(), "layer")
	gatewaytest.Must(t, os.WriteFile(file, nil, 0o600))
	for range 2 {
		gatewaytest.Must(t, Seal(file))
		info, err := os.Stat(file)
		gatewaytest.Must(t, err)
		owner := info.Sys().(*syscall.Stat_t) //nolint:forcetypeassert // on Linux it is
		if info.Mode().Perm() != 0o440 || owner.Uid != 0 || strconv.Itoa(int(owner.Gid)) != group.Gid {
			t.Errorf("%v, %d:%d", info.Mode(), owner.Uid, owner.Gid)
		}
	}
	if err := Seal(file + ".none"); err == nil {
		t.Error("no file was sealed")
	}
}
