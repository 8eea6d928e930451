package vmhost

import (
	"path/filepath"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt"
)

// newHost makes a host that has vms, and that has no libvirtd.
func newHost(t *testing.T, vms ...gateway.VM) *Host {
	t.Helper()
	h, err := New(Config{
		StateDir: filepath.Join(t.TempDir(), "state"), RunDir: filepath.Join(t.TempDir(), "run"),
		Directory:     gatewaytest.NewDirectory(t, new(gatewaytest.Records), vms...),
		LibvirtSocket: filepath.Join(t.TempDir(), "none"),
	})
	gatewaytest.Must(t, err)
	return h
}

func newVM(name string, want gateway.Desired) gateway.VM {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: want, Ready: true}
}

// A VM that has left for another host is recorded as stopped, and never started from the disk that it has left behind.
func TestMigratedIsNeverStarted(t *testing.T) {
	blog := newVM("blog", gateway.Running)
	h := newHost(t, blog)
	w := h.worker(blog.ID)
	if _, err := h.keepRunning(t.Context(), w, blog, libvirt.Migrated); err != nil {
		t.Fatal(err)
	}
	now, _ := h.dir.ByID(blog.ID)
	if now.Desired != gateway.Stopped || now.Incarnation != 0 {
		t.Errorf("recorded: %+v", now)
	}
	if err := h.keepStopped(t.Context(), now, libvirt.Migrated); err != nil {
		t.Errorf("its definition, which has the reason, was changed: %v", err)
	}
	if got := h.status(now, libvirt.Migrated); got.State != "stopped" || !strings.Contains(got.Reason, "migrated") {
		t.Errorf("status: %+v", got)
	}
}
