package vmhost_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt/libvirttest"
)

// killMoments are the moments at which a process is killed while a VM is resumed, and killStep is
// the time between two of them. Together they last longer than New does.
const (
	killMoments = 8
	killStep    = 80 * time.Millisecond
)

// When libvirtd is killed at any moment while a VM is resumed, the VM runs afterwards, or New has
// failed and nothing of it is left.
func TestLibvirtdKilledWhileResuming(t *testing.T) {
	needVMs(t)
	daemon := libvirttest.Start(t)
	r := newTemplateRig(t, "/var/tmp")
	r.resumed(t, "first")
	for moment := range killMoments {
		name := fmt.Sprintf("blog%d", moment)
		made := make(chan error, 1)
		go func() {
			_, _, err := r.phases(t.Context(), name)
			made <- err
		}()
		<-time.After(time.Duration(moment) * killStep)
		daemon.Kill()
		daemon.Again(t)
		err := <-made
		gatewaytest.Eventually(t, func() error { return r.wholeOrGone(t, name) })
		t.Logf("killed after %s: New returned %v", time.Duration(moment)*killStep, err)
	}
	r.wantAsManyAsRecords(t)
}

// When its QEMU is killed while a VM is resumed, the VM boots instead.
func TestQEMUKilledWhileResuming(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newTemplateRig(t, "/var/tmp")
	before := r.resumed(t, "first")
	for moment := range 3 {
		name := fmt.Sprintf("blog%d", moment)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if _, all, err := r.phases(t.Context(), name); err != nil {
				t.Errorf("New: %v\n%s", err, all)
			}
		}()
		killNewQEMU(t, before.ID, ended)
		<-ended
		gatewaytest.Eventually(t, func() error { return r.wholeOrGone(t, name) })
		m, ok := r.config.Directory.ByName(name)
		if !ok {
			t.Fatalf("%s is gone", name)
		}
		if err := r.host.Remove(t.Context(), m.ID); err != nil {
			t.Error(err)
		}
	}
	r.wantAsManyAsRecords(t)
}

// killNewQEMU kills the first QEMU that is not that of a VM, as soon as it exists.
func killNewQEMU(t *testing.T, other gateway.ID, ended <-chan struct{}) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		files, _ := filepath.Glob("/run/libvirt/qemu/lodge-[0-9a-f]*.pid") // the pattern is valid
		for _, file := range files {
			text, err := os.ReadFile(file)
			pid, errPID := strconv.Atoi(strings.TrimSpace(string(text)))
			if err == nil && errPID == nil && !strings.Contains(file, other.String()) {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
				return
			}
		}
		select {
		case <-ended:
			t.Error("no QEMU was seen")
			return
		case <-tick.C:
		}
	}
}

// wholeOrGone returns an error unless the VM runs, or there is none.
func (r *rig) wholeOrGone(t *testing.T, name string) error {
	t.Helper()
	m, ok := r.config.Directory.ByName(name)
	if !ok {
		return nil
	}
	if got := r.host.Status(t.Context(), m.ID); got.State != "running" {
		return fmt.Errorf("%s is %s (%s)", name, got.State, got.Reason)
	}
	return nil
}

// wantAsManyAsRecords checks that each VM has one domain and one disk, that nothing else has, and
// that no copy of a template's memory is left.
func (r *rig) wantAsManyAsRecords(t *testing.T) {
	t.Helper()
	gatewaytest.Eventually(t, func() error {
		vms := len(r.config.Directory.All())
		domains := len(strings.Fields(virsh(t, "list", "--all", "--name")))
		disks, err := filepath.Glob(filepath.Join(r.config.StateDir, "disks", "*.[iq]*"))
		memories, errMemory := filepath.Glob(filepath.Join(r.config.StateDir, "disks", "*.memory"))
		if err := errors.Join(err, errMemory); err != nil {
			return err
		}
		if domains != vms || len(disks) != vms || len(memories) != 0 {
			return fmt.Errorf("%d VMs, %d domains, disks %v, memories %v", vms, domains, disks, memories)
		}
		return nil
	})
}
