package netid

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"lodge/gateway"
)

func many(count uint32) []gateway.Identity {
	vms := make([]gateway.Identity, count)
	addr := netip.MustParseAddr("10.213.1.0")
	for i := range vms {
		vms[i] = vm(uint32(i)+1, fmt.Sprintf("vm%d", i), addr.String())
		addr = addr.Next()
	}
	return vms
}

// Whatever is asked at the same time, in the end exactly those are up that ought to be.
func TestAtOnce(t *testing.T) {
	n, vms := newNet(t), many(8)
	fatal(t, n.Apply(t.Context(), vms[:2]))
	var all sync.WaitGroup
	for i, vm := range vms {
		all.Go(func() {
			must(t, n.Up(t.Context(), vm))
			must(t, n.Repair(t.Context()))
			if i%2 == 1 {
				must(t, n.Down(t.Context(), vm))
			}
		})
	}
	all.Wait()
	up := taps(t)
	for i, vm := range vms {
		if _, is := up[vm.Tap()]; is != (i%2 == 0) {
			t.Errorf("%s is up: %v", vm.Tap(), is)
		}
	}
	for i := range 4 {
		must(t, n.Down(t.Context(), vms[2*i]))
	}
	if up := taps(t); len(up) > 0 {
		t.Errorf("left: %v", up)
	}
}

// BenchmarkRepair is what a running daemon does every few seconds; BenchmarkApply is what it does when it starts after a
// reboot of the host.
func BenchmarkRepair(b *testing.B) {
	n, vms := New(Config{Net: guestNet, TCP: []uint16{80}, Logger: quietLogger}), many(50)
	if err := n.Apply(b.Context(), vms); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := n.Repair(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if err := n.Apply(b.Context(), nil); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkApply(b *testing.B) {
	n, vms := New(Config{Net: guestNet, TCP: []uint16{80}, Logger: quietLogger}), many(50)
	for b.Loop() {
		if err := n.Apply(b.Context(), vms); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := n.Apply(context.WithoutCancel(b.Context()), nil); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
