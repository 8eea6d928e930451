package conns

import (
	"runtime"
	"runtime/debug"
	"testing"

	"lodge/gateway/gatewaytest"
)

// Connections that have sent nothing do not have the stack that a handshake takes: strangers can have
// many of them at once.
func TestSilentStrangersKeepSmallStacks(t *testing.T) {
	s := newServer(t)
	const strangers = 128
	stacks := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.StackInuse
	}
	runtime.GC()                                     // the stacks of goroutines that have ended are free
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which shrinks stacks
	before := stacks()
	for range strangers {
		s.dial()
	}
	gatewaytest.WaitFor(t, "each handshake waits for its client", func() bool {
		waiting := 0
		s.guard.mu.Lock()
		defer s.guard.mu.Unlock()
		for c := range s.guard.open {
			if f := handshakeIn(c); f != nil && f.since.Load() != 0 {
				waiting++
			}
		}
		return waiting == strangers
	})
	each := (int64(stacks()) - int64(before)) / strangers //nolint:gosec // stacks fit
	t.Logf("%d bytes of stacks for each", each)
	if each >= handlerStack {
		t.Errorf("%d bytes of stacks for each silent connection, want less than %d", each, handlerStack)
	}
}
