package smtpd

import (
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
)

const (
	netFactor = 4 // what the net around a Peer may, compared to the Peer
	maxDelay  = 10 * time.Second
)

type rates struct{ conns, messages, refused peerRates }

func newRates(r Rates) *rates {
	return &rates{newPeerRates(r.Conns), newPeerRates(r.Messages), newPeerRates(r.Refused)}
}

// peerRates has a token bucket for each Peer, and one for the net around it.
type peerRates struct{ each, around *limit.Rates[gateway.Peer] }

func newPeerRates(r Rate) peerRates {
	return peerRates{
		limit.NewRates[gateway.Peer](r.PerSecond, r.Burst),
		limit.NewRates[gateway.Peer](r.PerSecond*netFactor, r.Burst*netFactor),
	}
}

// take takes one token of p and of its net, and is false when there is none.
func (r peerRates) take(p gateway.Peer, now time.Time) bool {
	_, ok := r.within(p, now, 0)
	return ok
}

// reserve takes the next token, and returns how long it has to be waited for. It is false, and takes
// none, when that is longer than 10 s.
func (r peerRates) reserve(p gateway.Peer, now time.Time) (time.Duration, bool) {
	return r.within(p, now, maxDelay)
}

func (r peerRates) within(p gateway.Peer, now time.Time, longest time.Duration) (time.Duration, bool) {
	if p.Loopback() || p == (gateway.Peer{}) {
		return 0, true
	}
	wait, undo, ok := r.each.Reserve(p, now, longest)
	around := p.Around()
	if !ok || around == p {
		return wait, ok
	}
	more, _, ok := r.around.Reserve(around, now, longest)
	if !ok {
		undo()
	}
	return max(wait, more), ok
}
