package vmhost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sockets"
	"lodge/vmhost/accel"
	"lodge/vmhost/libvirt"
)

// newHost makes a host that has vms, each with an empty disk, and that has no libvirtd.
func newHost(t *testing.T, vms ...gateway.VM) *Host {
	t.Helper()
	layers := new(gatewaytest.Layers)
	for i, m := range vms {
		vms[i].Disk = gateway.LayerID(m.ID.String())
		gatewaytest.Must(t, layers.Put(t.Context(), gateway.Layer{
			ID: vms[i].Disk, VM: m.ID, File: "disks/" + m.ID.String() + ".img", Format: gateway.Raw, State: gateway.LayerReady,
		}))
	}
	h := newHostOver(t, layers, vms...)
	for _, m := range vms {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(h.cfg.diskDir(), m.ID.String()+".img"), nil, 0o600))
	}
	return h
}

// newHostOver is newHost with these layers.
func newHostOver(t *testing.T, layers *gatewaytest.Layers, vms ...gateway.VM) *Host {
	t.Helper()
	h, err := New(Config{
		StateDir: filepath.Join(t.TempDir(), "state"), RunDir: filepath.Join(t.TempDir(), "run"),
		Directory:     gatewaytest.NewDirectory(t, new(gatewaytest.Records), vms...),
		Layers:        layers,
		Checkpoints:   new(gatewaytest.Checkpoints),
		LibvirtSocket: filepath.Join(t.TempDir(), "none"),
	})
	gatewaytest.Must(t, err)
	return h
}

func newVM(name string, want gateway.Desired) gateway.VM {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: want, Ready: true}
}

// A VM that was migrated to another host is recorded as stopped, and never started from its old
// disk.
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
	for _, state := range []libvirt.State{libvirt.Migrated, libvirt.Off, libvirt.Absent} { // as after a restart of libvirtd
		if got := h.status(now, state); got.State != "stopped" || !strings.Contains(got.Reason, "migrated") {
			t.Errorf("status when %s: %+v", state, got)
		}
		if err := h.checkMigrated(blog.ID, state); gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("start when %s: %v", state, err)
		}
	}
	if err := h.keepStopped(t.Context(), now, libvirt.Running); err != nil { // migrated back
		t.Errorf("reconcile when it is back: %v", err)
	}
	if err := h.checkMigrated(blog.ID, libvirt.Off); err != nil {
		t.Errorf("start when it is back: %v", err)
	}
}

// A restart that was interrupted is finished: its guest is asked again to shut down, and its poweroff
// is none from inside. A start, a stop and a migration end it.
func TestInterruptedRestartIsFinished(t *testing.T) {
	blog := newVM("blog", gateway.Running)
	blog.Number, blog.Restarting = 1, true
	newTap(t, blog.Identity)
	h := newHost(t, blog)
	listeners := gateway.NewTapListeners()
	t.Cleanup(listeners.Shutdown)
	h.cfg.Net, h.cfg.TapListeners = new(fakeNet), listeners
	h.accel = accel.New(accel.TCG, "", h.log) // needs no image
	close(h.ready)
	w := h.worker(blog.ID)
	set := func(restarting bool) gateway.VM {
		m, err := h.dir.Update(t.Context(), blog.ID, func(m *gateway.VM) error {
			m.Desired, m.Restarting = gateway.Running, restarting
			return nil
		})
		gatewaytest.Must(t, err)
		return m
	}
	for _, c := range []struct {
		restarting bool
		state      libvirt.State
		calls      bool // libvirtd, which is absent
		want       gateway.Desired
	}{
		{true, libvirt.PoweredOff, true, gateway.Running},
		{true, libvirt.Running, true, gateway.Running},
		{false, libvirt.Running, false, gateway.Running},
		{false, libvirt.PoweredOff, true, gateway.Stopped},
	} {
		_, err := h.keepRunning(t.Context(), w, set(c.restarting), c.state)
		now, _ := h.dir.ByID(blog.ID)
		if called := gateway.KindOf(err) == gateway.KindUnavailable; called != c.calls || now.Desired != c.want || now.Restarting != c.restarting {
			t.Errorf("%s, restarting %v: %v; recorded: %s, restarting %v", c.state, c.restarting, err, now.Desired, now.Restarting)
		}
	}
	for name, end := range map[string]func() error{
		"start":    func() error { return h.bringUp(t.Context(), w) }, // fails after the record, without libvirtd
		"by verb":  func() error { _, err := h.desire(t.Context(), blog.ID, gateway.Running); return err },
		"stop":     func() error { return h.Stop(t.Context(), blog.ID, false) },
		"force":    func() error { return h.Stop(t.Context(), blog.ID, true) },
		"migrated": func() error { _, err := h.keepRunning(t.Context(), w, blog, libvirt.Migrated); return err },
	} {
		set(true)
		err := end()
		if now, _ := h.dir.ByID(blog.ID); now.Restarting {
			t.Errorf("%s: still restarting (%v)", name, err)
		}
	}
}

// A restart that waits shows why, and until when.
func TestWaitingRestartIsExplained(t *testing.T) {
	blog := newVM("blog", gateway.Running)
	h := newHost(t, blog)
	w := h.worker(blog.ID)
	w.pace = pace{tries: 6, last: time.Now()}
	w.setPace()
	got := h.status(blog, libvirt.Off)
	for _, want := range []string{"automatic starts in a row: 6", "Next start at ", ", in 32s.", "lodge start blog"} {
		if got.State != "starting" || !strings.Contains(got.Reason, want) {
			t.Errorf("status: %+v, want %q", got, want)
		}
	}
}

type fakeNet struct {
	err error
	ups int // calls of Up
}

func (f *fakeNet) Apply(context.Context, []gateway.Identity) error { return f.err }
func (f *fakeNet) Down(context.Context, gateway.Identity) error    { return f.err }
func (f *fakeNet) Repair(context.Context) ([]gateway.Identity, error) {
	return nil, f.err
}

func (f *fakeNet) Up(context.Context, gateway.Identity) error {
	f.ups++
	return f.err
}

// Every start calls Up, also on the tap of the start before: another program may have flushed the
// rules. A reconcile of a running VM does not.
func TestStartsCallUp(t *testing.T) {
	blog := newVM("blog", gateway.Running)
	blog.Number = 1
	newTap(t, blog.Identity)
	h := newHost(t, blog)
	network, listeners := &fakeNet{}, gateway.NewTapListeners()
	t.Cleanup(listeners.Shutdown)
	h.cfg.Net, h.cfg.TapListeners = network, listeners
	h.accel = accel.New(accel.TCG, "", h.log) // needs no image
	w := h.worker(blog.ID)
	h.identifyAll(t.Context())
	reconcile := func(state libvirt.State) func() error {
		return func() error {
			_, err := h.keepRunning(t.Context(), w, blog, state)
			return err
		}
	}
	for _, c := range []struct {
		name  string
		start func() error
		ups   int
	}{
		{"bringUp", func() error { return h.bringUp(t.Context(), w) }, 1},
		{"restore", func() error { return h.restore(t.Context(), w) }, 1},
		{"start a running VM", func() error { return h.startFrom(t.Context(), w, blog, libvirt.Running) }, 1},
		{"reconcile", reconcile(libvirt.Running), 0},
	} {
		before := network.ups
		err := c.start() // without libvirtd no start succeeds
		if got := network.ups - before; got != c.ups {
			t.Errorf("%s: %d calls of Up, want %d (%v)", c.name, got, c.ups, err)
		}
	}
}

// newTap makes the tap of a VM, without a guest.
func newTap(t *testing.T, vm gateway.Identity) {
	t.Helper()
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: vm.Tap()}, Mode: netlink.TUNTAP_MODE_TAP}
	gatewaytest.Must(t, netlink.LinkAdd(tap))
	t.Cleanup(func() { gatewaytest.Must(t, netlink.LinkDel(tap)) })
	gatewaytest.Must(t, netlink.AddrAdd(tap, &netlink.Addr{IPNet: &net.IPNet{
		IP: gateway.LinkLocal.AsSlice(), Mask: net.CIDRMask(32, 32),
	}}))
}

// After a restart of the daemon, an error of one VM or of the ruleset leaves the other VMs their
// services. The worker of each VM still calls Up.
func TestListenersOpenDespiteNetworkErrors(t *testing.T) {
	blog, shop := newVM("blog", gateway.Running), newVM("shop", gateway.Running)
	blog.Number, shop.Number = 1, 2
	newTap(t, shop.Identity) // blog has none
	h := newHost(t, blog, shop)
	network := &fakeNet{err: errors.New("nft is missing")}
	listeners := gateway.NewTapListeners()
	t.Cleanup(listeners.Shutdown)
	listeners.Listener(80)
	h.cfg.Net, h.cfg.TapListeners = network, listeners
	h.identifyAll(t.Context())
	listening, err := os.ReadFile("/proc/net/tcp")
	gatewaytest.Must(t, err)
	if !strings.Contains(string(listening), "FEA9FEA9:0050") {
		t.Errorf("shop has no listener:\n%s", listening)
	}
	if !errors.Is(h.network, network.err) {
		t.Errorf("recorded: %v", h.network)
	}
	for _, m := range []gateway.VM{blog, shop} {
		if err := h.identifyAgain(t.Context(), h.worker(m.ID), m.Identity); !errors.Is(err, network.err) {
			t.Errorf("reconcile %s: %v", m.Name, err)
		}
	}
}

// A start closes the sockets on taps that the daemon before has left and no VM has.
func TestStartClosesSocketsOfRemovedVMs(t *testing.T) {
	kept := sockets.New(nil)
	_, err := sockets.Open(kept, sockets.Taps+gateway.NewID().String(), sockets.At{}, func() (net.Listener, error) {
		return new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	})
	gatewaytest.Must(t, err)
	listeners := gateway.NewTapListeners()
	listeners.Sockets = gatewaytest.PassOn(t, kept)
	h := newHost(t, newVM("blog", gateway.Running))
	h.cfg.Net, h.cfg.TapListeners = &fakeNet{}, listeners
	h.identifyAll(t.Context())
	listeners.Sockets.Each(func(name string, _ int) { t.Errorf("%s is open", name) })
}

// Ready waits for the networks, for libvirtd's answer or its absence, and for the first reconcile
// of each VM; not for starts.
func TestReady(t *testing.T) {
	h := newHost(t, newVM("blog", gateway.Running))
	network := &fakeNet{err: errors.New("nft is missing")}
	h.cfg.Net, h.cfg.TapListeners = network, gateway.NewTapListeners()
	want := func(text string) {
		t.Helper()
		gatewaytest.Eventually(t, func() error {
			if err := h.Ready(); err == nil || !strings.Contains(err.Error(), text) {
				return fmt.Errorf("got %w, want %q", err, text)
			}
			return nil
		})
	}
	want("setting up the networks")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	want("nft is missing")
	h.setNetwork(ctx, nil)
	gatewaytest.Eventually(t, h.Ready) // libvirtd is absent, which is known
	cancel()
	gatewaytest.Must(t, <-ended)
}

// Without libvirtd all VMs are listed at once, as unknown, and those that are being removed as
// stopping.
func TestStatusesWithoutLibvirtd(t *testing.T) {
	blog, shop := newVM("blog", gateway.Running), newVM("shop", gateway.Removed)
	h := newHost(t, blog, shop)
	got := h.Statuses(t.Context())
	if got[blog.ID].State != "unknown" || !strings.Contains(got[blog.ID].Reason, "systemctl start libvirtd") || got[shop.ID].State != "stopping" {
		t.Errorf("got %+v", got)
	}
}
