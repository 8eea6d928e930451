package smtpd

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"lodge/gateway"
)

const (
	maxBuckets = 1 << 16
	netFactor  = 4 // what the net around a Peer may, compared to the Peer
	maxDelay   = 10 * time.Second
)

type rates struct{ conns, messages, refused *buckets }

func newRates(r Rates) *rates {
	return &rates{newBuckets(r.Conns), newBuckets(r.Messages), newBuckets(r.Refused)}
}

// buckets has a token bucket for each Peer, and one for the net around it.
type buckets struct {
	each Rate

	mu     sync.Mutex
	by     map[gateway.Peer]*rate.Limiter
	purged time.Time
}

func newBuckets(each Rate) *buckets {
	return &buckets{each: each, by: map[gateway.Peer]*rate.Limiter{}}
}

// take takes one token of p and of its net, and is false when there is none.
func (b *buckets) take(p gateway.Peer, now time.Time) bool {
	delay, ok := b.within(p, now, 0)
	return ok && delay == 0
}

// reserve takes the next token, and returns how long it has to be waited for. It is false, and takes
// none, when that is longer than 10 s.
func (b *buckets) reserve(p gateway.Peer, now time.Time) (time.Duration, bool) {
	return b.within(p, now, maxDelay)
}

func (b *buckets) within(p gateway.Peer, now time.Time, limit time.Duration) (time.Duration, bool) {
	if p.Loopback() || p == (gateway.Peer{}) {
		return 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var wait time.Duration
	var taken []*rate.Reservation
	for _, one := range b.of(p, now) {
		r := one.ReserveN(now, 1)
		taken = append(taken, r)
		if wait = max(wait, r.DelayFrom(now)); wait > limit {
			for _, r := range taken {
				r.CancelAt(now)
			}
			return 0, false
		}
	}
	return wait, true
}

// of returns the buckets of p: none while there are too many to remember another. Strangers choose
// their addresses. The caller holds b.mu.
func (b *buckets) of(p gateway.Peer, now time.Time) []*rate.Limiter {
	if len(b.by) >= maxBuckets {
		b.purge(now)
	}
	found := b.add(nil, p, 1)
	if around := p.Around(); around != p {
		found = b.add(found, around, netFactor)
	}
	return found
}

func (b *buckets) add(found []*rate.Limiter, p gateway.Peer, factor int) []*rate.Limiter {
	one := b.by[p]
	if one == nil && len(b.by) < maxBuckets {
		one = rate.NewLimiter(rate.Limit(b.each.PerSecond*float64(factor)), b.each.Burst*factor)
		b.by[p] = one
	}
	if one == nil {
		return found
	}
	return append(found, one)
}

// purge removes the buckets that are full again, which are as good as new ones; once a second, as it
// looks at all of them. The caller holds b.mu.
func (b *buckets) purge(now time.Time) {
	if now.Sub(b.purged) < time.Second {
		return
	}
	b.purged = now
	for k, one := range b.by {
		if one.TokensAt(now) >= float64(one.Burst()) {
			delete(b.by, k)
		}
	}
}
