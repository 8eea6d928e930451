package limit_test

import (
	"math"
	"testing"
	"time"

	"lodge/gateway/limit"
)

func TestRates(t *testing.T) {
	r, now := limit.NewRates[string](1, 2), time.Now()
	for i, want := range []bool{true, true, false} {
		if got := r.Take("a", now); got != want {
			t.Errorf("token %d of a: %t", i, got)
		}
	}
	if !r.Take("b", now) {
		t.Error("a took the token of b")
	}
	if r.Take("a", now.Add(900*time.Millisecond)) || !r.Take("a", now.Add(time.Second)) {
		t.Error("a second does not give one token")
	}
}

func TestReserve(t *testing.T) {
	r, now := limit.NewRates[string](1, 1), time.Now()
	if wait, _, ok := r.Reserve("a", now, time.Second); wait != 0 || !ok {
		t.Errorf("the first token: %s, %t", wait, ok)
	}
	wait, undo, ok := r.Reserve("a", now, time.Second)
	if wait != time.Second || !ok {
		t.Errorf("the second token: %s, %t", wait, ok)
	}
	if _, _, ok := r.Reserve("a", now, time.Second); ok {
		t.Error("a third token, 2 s away, is within 1 s")
	}
	undo()
	if wait, _, ok := r.Reserve("a", now, time.Second); wait != time.Second || !ok {
		t.Errorf("the token that was given back: %s, %t", wait, ok)
	}
}

// Several tokens are taken together or not at all, and given back together.
func TestReserveN(t *testing.T) {
	r, now := limit.NewRates[string](1, 10), time.Now()
	_, undo, ok := r.ReserveN("a", 8, now, 0)
	if wait, _, more := r.ReserveN("a", 3, now, 0); !ok || more || wait != time.Second {
		t.Errorf("8 of 10: %t, then 3: %t, %s", ok, more, wait)
	}
	undo()
	if _, _, ok := r.ReserveN("a", 11, now, time.Hour); ok {
		t.Error("11 of 10")
	}
	if _, _, ok := r.ReserveN("a", 10, now, 0); !ok {
		t.Error("what was given back is missing")
	}
}

// Strangers choose keys: there are never more buckets than the limit, those in use stay, and full ones go.
func TestRatesAreLimited(t *testing.T) {
	r, now := limit.NewRates[int](1, 2), time.Now()
	for k := range 2 * limit.MaxRates {
		r.Take(k, now)
	}
	if n := r.Kept(); n != limit.MaxRates {
		t.Errorf("%d buckets", n)
	}
	if r.Take(0, now); r.Take(0, now) {
		t.Error("the bucket of a key over its rate was removed")
	}
	if !r.Take(-1, now.Add(time.Minute)) || r.Kept() != 1 {
		t.Errorf("%d buckets after a minute", r.Kept())
	}
	r.Remove(-1)
	if n := r.Kept(); n != 0 {
		t.Errorf("%d buckets after Remove", n)
	}
}

func TestUnlimitedRate(t *testing.T) {
	r, now := limit.NewRates[int](math.Inf(1), 0), time.Now()
	for range 1000 {
		if !r.Take(0, now) {
			t.Fatal("refused")
		}
	}
}
