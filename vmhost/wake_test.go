package vmhost

import (
	"context"
	"net"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func byRequest(m gateway.VM) bool { return m.WakeOnRequest }

// A request wakes no VM that is being removed, whose owner does not want it, or that should run
// already: libvirtd, which is absent here, is called for the one that may be woken alone.
func TestWakeChecksTheRecord(t *testing.T) {
	running, stopped, wakeable := newVM("running", gateway.Running), newVM("stopped", gateway.Stopped), newVM("wakeable", gateway.Stopped)
	removed := newVM("removed", gateway.Removed)
	running.WakeOnRequest, wakeable.WakeOnRequest, removed.WakeOnRequest = true, true, true
	h := newHost(t, running, stopped, wakeable, removed)
	close(h.ready)
	for want, m := range map[gateway.Kind]gateway.VM{
		"": running, gateway.KindConflict: stopped, gateway.KindUnavailable: wakeable, gateway.KindNotFound: removed,
	} {
		err := h.Wake(t.Context(), m.ID, byRequest)
		if now, _ := h.dir.ByID(m.ID); now.Desired != m.Desired || (err == nil) != (want == "") || err != nil && gateway.KindOf(err) != want {
			t.Errorf("%s: %v, and %s; want %q", m.Name, err, now.Desired, want)
		}
	}
	if err := h.Wake(t.Context(), gateway.NewID(), byRequest); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("no VM: %v", err)
	}
	_, err := h.dir.Update(t.Context(), wakeable.ID, func(m *gateway.VM) error { m.WakeOnRequest = false; return nil })
	gatewaytest.Must(t, err)
	if err := h.Wake(t.Context(), wakeable.ID, byRequest); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("no longer wanted: %v", err)
	}
}

// A request that arrives during a stop does not undo it. libvirtd answers nothing here, so that the
// stop lasts until its caller gives up.
func TestWakeDuringAStop(t *testing.T) {
	blog := newVM("blog", gateway.Running)
	blog.WakeOnRequest = true
	h := newHost(t, blog)
	close(h.ready)
	silent, err := new(net.ListenConfig).Listen(t.Context(), "unix", h.cfg.LibvirtSocket)
	gatewaytest.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	stopping := make(chan error, 1)
	go func() { stopping <- h.Stop(ctx, blog.ID, false) }()
	gatewaytest.WaitFor(t, "the stop is recorded", func() bool { return h.wants(blog.ID, gateway.Stopped) })
	waking := make(chan error, 1)
	go func() { waking <- h.Wake(t.Context(), blog.ID, byRequest) }()
	gatewaytest.WaitFor(t, "the end of Wake", func() bool { return len(waking) > 0 })
	if err := <-waking; gateway.KindOf(err) != gateway.KindConflict || !h.wants(blog.ID, gateway.Stopped) {
		t.Errorf("during the stop: %v", err)
	}
	cancel()
	if err := <-stopping; err == nil {
		t.Error("the stop succeeded")
	}
	gatewaytest.Must(t, silent.Close())
	if err := h.Wake(t.Context(), blog.ID, byRequest); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("after the stop: %v", err) // of libvirtd, which has gone
	}
}

// A stop that is recorded while a VM is woken wins.
func TestWakeReadsTheRecordLast(t *testing.T) {
	blog := newVM("blog", gateway.Stopped)
	blog.WakeOnRequest = true
	h := newHost(t, blog)
	w := h.worker(blog.ID)
	ended := w.stops()
	if _, err := h.desireAwake(t.Context(), w, byRequest); gateway.KindOf(err) != gateway.KindConflict || !h.wants(blog.ID, gateway.Stopped) {
		t.Errorf("during a stop: %v", err)
	}
	ended()
	if _, err := h.desireAwake(t.Context(), w, byRequest); err != nil || !h.wants(blog.ID, gateway.Running) {
		t.Errorf("after it: %v", err)
	}
}
