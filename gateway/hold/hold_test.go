package hold_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway/hold"
)

func pass(g *hold.Gate) bool { return g.Pass(func() bool { return !g.Held() }) }

func TestAnOpenGateLetsPass(t *testing.T) {
	var g hold.Gate
	if g.Held() || !pass(&g) {
		t.Error("it is closed")
	}
}

// A write waits for the last of all holds, whose releases may be repeated.
func TestAWriteWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g hold.Gate
		first, second := g.Hold(func() { t.Error("late") }), g.Hold(func() { t.Error("late") })
		var done atomic.Bool
		go func() { done.Store(pass(&g)) }()
		first()
		first()
		synctest.Wait()
		if done.Load() || !g.Held() {
			t.Error("the second hold does not count")
		}
		second()
		synctest.Wait()
		if !done.Load() || g.Held() {
			t.Error("the write waits on")
		}
	})
}

// A write is refused after a while, and a hold that nobody ends ends by itself.
func TestNothingWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g hold.Gate
		begun, late := time.Now(), false
		release := g.Hold(func() { late = true })
		if pass(&g) || time.Since(begun) != hold.DefaultWait {
			t.Errorf("passed, or waited %v", time.Since(begun))
		}
		<-time.After(hold.DefaultLimit)
		synctest.Wait()
		if !late || !pass(&g) {
			t.Error("the hold lasts")
		}
		release()
		if !pass(&g) {
			t.Error("a late release counts")
		}
	})
}

// Await waits as long as the hold lasts.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g hold.Gate
		release, begun := g.Hold(func() { t.Error("late") }), time.Now()
		time.AfterFunc(2*hold.DefaultWait, release)
		g.Await(func() bool { return !g.Held() })
		if waited := time.Since(begun); waited != 2*hold.DefaultWait {
			t.Errorf("waited %v", waited)
		}
	})
}

// While has no limit: f ends by itself.
func TestWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g hold.Gate
		_ = g.While(func() error {
			<-time.After(2 * hold.DefaultLimit)
			if !g.Held() {
				t.Error("it is open")
			}
			return nil
		})
		if g.Held() {
			t.Error("it is held")
		}
	})
}
