package controltest

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"lodge/gateway"
)

// fakeForwards are forwards without sockets. Port 25 is lodged's own, and port 5432 opens no more
// after it was made.
type fakeForwards struct {
	mu  sync.Mutex
	all []gateway.ForwardStatus
}

// Add implements api.Forwarder.
func (f *fakeForwards) Add(_ context.Context, forward gateway.Forward) (gateway.ForwardStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	status := gateway.ForwardStatus{Forward: forward, Addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	switch {
	case forward.Check() != nil:
		return status, forward.Check()
	case forward.Port == 25:
		return status, gateway.Errorf(gateway.KindConflict, "port 25/tcp of the host is lodged's own (smtp_port)").WithHint("Choose another port.")
	case slices.ContainsFunc(f.all, func(s gateway.ForwardStatus) bool { return s.HostPort == forward.HostPort }):
		return status, gateway.Errorf(gateway.KindTaken, "port %s of the host leads to another VM already", forward.HostPort)
	}
	if forward.Addr.IsValid() {
		status.Addrs = []netip.Addr{forward.Addr}
	}
	listed := status
	if forward.Port == 5432 {
		listed.Err = gateway.Errorf(gateway.KindConflict, "port 5432 of 127.0.0.1 is taken by postgres (process 7)")
	}
	f.all = append(f.all, listed)
	return status, nil
}

// Remove implements api.Forwarder.
func (f *fakeForwards) Remove(_ context.Context, port gateway.HostPort) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.all, func(s gateway.ForwardStatus) bool { return s.HostPort == port })
	if i < 0 {
		return gateway.Errorf(gateway.KindNotFound, "port %s of the host is not forwarded", port).WithHint("lodge forward ls lists the forwarded ports.")
	}
	f.all = slices.Delete(f.all, i, i+1)
	return nil
}

// List implements api.Forwarder.
func (f *fakeForwards) List() []gateway.ForwardStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}
