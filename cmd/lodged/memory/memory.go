// Package memory sets how the daemon trades memory for CPU time.
//
// Under load the heap may grow to five times of what is in use, which halves the garbage
// collector's share of a small request. Keep returns that memory to the system once the load has
// ended. Limit bounds it: the collector works harder from there on.
package memory

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Limit is the size that the collector keeps the daemon below, as long as what is in use allows it.
// 1,000 VMs take 110 MiB at rest.
const Limit = 1 << 30

const (
	growth = 400 // percent

	interval  = 2 * time.Second
	quiet     = 2 << 20  // bytes allocated within an interval: less is no load
	worthIt   = 16 << 20 // bytes allocated since the last return
	allocated = "/gc/heap/allocs:bytes"
)

// Keep applies the settings, and returns unused memory whenever a load has ended, until ctx ends.
func Keep(ctx context.Context) {
	debug.SetGCPercent(growth)
	debug.SetMemoryLimit(Limit)
	keep(ctx, time.NewTicker(interval).C, debug.FreeOSMemory)
}

func keep(ctx context.Context, tick <-chan time.Time, free func()) {
	last := total()
	freed := last
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		now := total()
		if now-last < quiet && now-freed > worthIt {
			free() // also shrinks the stacks of idle connections
			freed = now
		}
		last = now
	}
}

// total is what was ever allocated.
func total() uint64 {
	sample := []metrics.Sample{{Name: allocated}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
