package browser

import (
	"container/list"
	"sync"
	"time"

	"lodge/gateway"
)

// The limits of a Pending. Strangers fill it.
const (
	maxPending = 4096 // in all
	maxOfPeer  = 60   // of one address or network within the life
)

// Pending has what visitors have begun, each for a limited time and to be finished once. It is in
// memory: a restart of the daemon ends all. Use NewPending.
type Pending[T any] struct {
	life time.Duration
	now  func() time.Time

	mu    sync.Mutex
	byKey map[string]*list.Element
	order list.List // of *begun[T], the oldest first; those taken count for their peer until they expire
	peers map[gateway.Peer]int
}

type begun[T any] struct {
	key     string
	peer    gateway.Peer
	value   T
	expires time.Time
}

// NewPending returns a Pending of things that last for life.
func NewPending[T any](life time.Duration, now func() time.Time) *Pending[T] {
	return &Pending[T]{life: life, now: now, byKey: map[string]*list.Element{}, peers: map[gateway.Peer]int{}}
}

// Add notes what a peer has begun under a key, a fresh secret. One peer may begin 60 things within
// their life (KindUnavailable), but a tunnel or proxy, which stands for many. When there are too many
// in all, the oldest one of the peer with the most is removed.
func (p *Pending[T]) Add(key string, peer gateway.Peer, value T) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire()
	if p.peers[peer] >= maxOfPeer && !peer.Loopback() && peer != (gateway.Peer{}) {
		return gateway.Errorf(gateway.KindUnavailable, "too many logins were begun at your address").WithHint("Wait some minutes, then try again.")
	}
	if p.order.Len() >= maxPending {
		p.remove(p.oldestOf(p.greediest()))
	}
	p.peers[peer]++
	p.byKey[key] = p.order.PushBack(&begun[T]{key, peer, value, p.now().Add(p.life)})
	return nil
}

// Take returns what was begun under a key, once. It is false when that was never begun, is finished or
// has expired.
func (p *Pending[T]) Take(key string) (value T, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire()
	element, ok := p.byKey[key]
	if !ok {
		return value, false
	}
	delete(p.byKey, key)
	one := element.Value.(*begun[T])
	value = one.value
	one.value = *new(T) // what counts needs no content
	return value, true
}

func (p *Pending[T]) expire() {
	now := p.now()
	for e := p.order.Front(); e != nil && !now.Before(e.Value.(*begun[T]).expires); e = p.order.Front() {
		p.remove(e)
	}
}

func (p *Pending[T]) remove(e *list.Element) {
	one := e.Value.(*begun[T])
	if p.byKey[one.key] == e {
		delete(p.byKey, one.key)
	}
	if p.peers[one.peer]--; p.peers[one.peer] == 0 {
		delete(p.peers, one.peer)
	}
	p.order.Remove(e)
}

// greediest is the peer that has begun the most.
func (p *Pending[T]) greediest() (most gateway.Peer) {
	n := 0
	for peer, has := range p.peers {
		if has > n {
			most, n = peer, has
		}
	}
	return most
}

func (p *Pending[T]) oldestOf(peer gateway.Peer) *list.Element {
	for e := p.order.Front(); e != nil; e = e.Next() {
		if e.Value.(*begun[T]).peer == peer {
			return e
		}
	}
	return p.order.Front()
}
