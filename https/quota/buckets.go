package quota

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// buckets is one token bucket per key.
type buckets[K comparable] struct {
	rate  rate.Limit
	burst int

	mu     sync.Mutex
	by     map[K]*rate.Limiter
	purged time.Time
}

func newBuckets[K comparable](perSecond float64, burst int) *buckets[K] {
	return &buckets[K]{rate: rate.Limit(perSecond), burst: burst, by: map[K]*rate.Limiter{}}
}

// take takes one token of k, and is false when there is none.
func (b *buckets[K]) take(k K, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.by[k]
	if one == nil {
		if len(b.by) >= maxBuckets {
			b.purge(now)
		}
		if len(b.by) >= maxBuckets {
			return true // strangers choose keys: those past the limit have the VM's rate alone
		}
		one = rate.NewLimiter(b.rate, b.burst)
		b.by[k] = one
	}
	return one.AllowN(now, 1)
}

// purge removes the buckets that are full again, which are as good as new ones; once a second, as it
// looks at all of them.
func (b *buckets[K]) purge(now time.Time) {
	if now.Sub(b.purged) < time.Second {
		return
	}
	b.purged = now
	for k, one := range b.by {
		if one.TokensAt(now) >= float64(b.burst) {
			delete(b.by, k)
		}
	}
}
