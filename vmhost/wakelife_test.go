package vmhost_test

import (
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/vmhost/libvirt/libvirttest"
)

// Requests start a stopped VM once, at the same time too, and only if its owner wants that. While its
// guest shuts down, they do not undo the stop.
func TestWake(t *testing.T) {
	needVMs(t)
	libvirttest.Start(t)
	r := newRig(t, "/var/tmp")
	m := r.make(t, "blog")
	_, err := r.config.Directory.Update(t.Context(), m.ID, func(m *gateway.VM) error { m.WakeOnRequest = true; return nil })
	gatewaytest.Must(t, err)
	stopping := make(chan error, 1)
	go func() { stopping <- r.host.Stop(t.Context(), m.ID, false) }()
	gatewaytest.WaitFor(t, "the stop is recorded", func() bool { return r.machine(t, m.ID).Desired == gateway.Stopped })
	if err := r.host.Wake(t.Context(), m.ID, func(m gateway.VM) bool { return m.WakeOnRequest }); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("during the stop: %v", err)
	}
	gatewaytest.Must(t, <-stopping)
	r.wantState(t, m.ID, "stopped")
	waking := make(chan error, 3)
	for range cap(waking) {
		go func() { waking <- r.host.Wake(t.Context(), m.ID, func(m gateway.VM) bool { return m.WakeOnRequest }) }()
	}
	for range cap(waking) {
		gatewaytest.Must(t, <-waking)
	}
	r.wantState(t, m.ID, "running")
	r.waitGreetings(t, m.ID, 2)
	if got := r.machine(t, m.ID).Incarnation; got != 2 {
		t.Errorf("incarnation %d after one stop and one wake", got)
	}
}
