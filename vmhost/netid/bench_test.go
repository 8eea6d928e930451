package netid

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

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

// However calls are interleaved, in the end exactly the VMs that should be up are up.
func TestAtOnce(t *testing.T) {
	n, vms := newNet(t), many(8)
	fatal(t, n.Apply(t.Context(), vms[:2]))
	var all sync.WaitGroup
	for i, vm := range vms {
		all.Go(func() {
			must(t, n.Up(t.Context(), vm))
			must(t, repair(t, n))
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

// BenchmarkRepair measures what an idle daemon runs every five seconds: wall time, and the share of
// one core, the processes it starts included. It is the daemon's idle load.
func BenchmarkRepair(b *testing.B) {
	for _, count := range []uint32{50, 200, 1000} {
		b.Run(fmt.Sprintf("%dVMs", count), func(b *testing.B) {
			n := New(Config{Net: guestNet, TCP: []uint16{80}, Logger: quietLogger})
			if err := n.Apply(b.Context(), many(count)); err != nil {
				b.Fatal(err)
			}
			if _, err := n.Repair(b.Context()); err != nil { // the first one compares every tap
				b.Fatal(err)
			}
			before := cpuTime(b)
			for b.Loop() {
				if _, err := n.Repair(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			perRun := (cpuTime(b) - before) / time.Duration(b.N)
			b.ReportMetric(100*perRun.Seconds()/5, "%core")
			if err := n.Apply(context.WithoutCancel(b.Context()), nil); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// cpuTime is the processor time of this process and of the children it has waited for.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var use syscall.Rusage
		if err := syscall.Getrusage(who, &use); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	return sum
}

// BenchmarkApply measures the start of a daemon after a reboot of the host.
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
