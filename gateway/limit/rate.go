package limit

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// MaxRates is how many buckets one Rates keeps, of some 150 bytes each.
const MaxRates = 1 << 16

// Rates is a token bucket for each key. Strangers choose keys, so there are at most MaxRates buckets; a
// key that comes while that many are in use has no limit of its own. Combine a Rates of addresses with
// one of what they are in. It is safe for concurrent use; make one with NewRates.
type Rates[K comparable] struct {
	each  rate.Limit
	burst int

	mu     sync.Mutex
	by     map[K]*rate.Limiter
	purged time.Time
}

// NewRates returns buckets that hold burst tokens and get perSecond new ones. math.Inf(1) is no limit.
func NewRates[K comparable](perSecond float64, burst int) *Rates[K] {
	each := rate.Limit(perSecond)
	if perSecond >= float64(rate.Inf) {
		each = rate.Inf
	}
	return &Rates[K]{each: each, burst: burst, by: map[K]*rate.Limiter{}}
}

// Take takes a token of k, and is false when there is none.
func (r *Rates[K]) Take(k K, now time.Time) bool {
	_, _, ok := r.Reserve(k, now, 0)
	return ok
}

// Reserve takes the next token of k, and returns how long it has to be waited for; undo gives it back.
// When that is longer than longest it is false, takes nothing and returns no undo.
func (r *Rates[K]) Reserve(k K, now time.Time, longest time.Duration) (wait time.Duration, undo func(), ok bool) {
	return r.ReserveN(k, 1, now, longest)
}

// ReserveN is Reserve for n tokens, all or none. More than a bucket holds are never to be had.
func (r *Rates[K]) ReserveN(k K, n int, now time.Time, longest time.Duration) (wait time.Duration, undo func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.of(k, now)
	if one == nil {
		return 0, func() {}, true
	}
	if wait = r.delay(one, n, now); wait > longest {
		return wait, nil, false // a reservation that is cancelled would shorten what others give back
	}
	taken := one.ReserveN(now, n)
	return taken.DelayFrom(now), func() { taken.CancelAt(now) }, true
}

// delay is how long n tokens have to be waited for.
func (r *Rates[K]) delay(one *rate.Limiter, n int, now time.Time) time.Duration {
	missing := float64(n) - one.TokensAt(now)
	switch {
	case r.each == rate.Inf || missing <= 0:
		return 0
	case n > r.burst || r.each <= 0:
		return math.MaxInt64
	}
	return time.Duration(missing / float64(r.each) * float64(time.Second))
}

// of returns the bucket of k; nil while there are too many to keep another.
func (r *Rates[K]) of(k K, now time.Time) *rate.Limiter {
	if one := r.by[k]; one != nil {
		return one
	}
	if len(r.by) >= MaxRates {
		r.purge(now)
	}
	if len(r.by) >= MaxRates {
		return nil
	}
	one := rate.NewLimiter(r.each, r.burst)
	r.by[k] = one
	return one
}

// purge removes the buckets that are full again, which are as good as new ones; once a second, as it
// looks at all of them.
func (r *Rates[K]) purge(now time.Time) {
	if now.Sub(r.purged) < time.Second {
		return
	}
	r.purged = now
	for k, one := range r.by {
		if one.TokensAt(now) >= float64(r.burst) {
			delete(r.by, k)
		}
	}
}

// Remove removes the bucket of a key that does not come again.
func (r *Rates[K]) Remove(k K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.by, k)
}

// Kept is how many buckets there are.
func (r *Rates[K]) Kept() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.by)
}
