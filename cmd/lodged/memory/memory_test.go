package memory

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestKeep: memory is returned once after a load, not during it, and not for a trifle.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tick, frees := make(chan time.Time), 0
		step := func(bytes int) {
			for range bytes / (1 << 20) {
				kept = make([]byte, 1<<20)
			}
			tick <- time.Now()
			synctest.Wait()
		}
		go keep(t.Context(), tick, func() { frees++ })
		synctest.Wait()
		for name, part := range []struct{ allocate, want int }{
			{0, 0}, {1 << 20, 0}, // nothing worth it
			{32 << 20, 0}, {32 << 20, 0}, // under load
			{0, 1}, {0, 1}, // the load has ended
			{32 << 20, 1}, {0, 2}, // another
		} {
			if step(part.allocate); frees != part.want {
				t.Errorf("after step %d: %d times, want %d", name, frees, part.want)
			}
		}
	})
}

var kept []byte // so that the allocations are not optimized away
