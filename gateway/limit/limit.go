// Package limit counts what is held at once: connections, requests, transfers; per key and in all.
// Rates limits how often something happens.
//
// A limit in all is shared by the dynamic threshold of Choudhury and Hahne ("Dynamic Queue Length
// Thresholds for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998,
// with α = 1): a key may hold no more than what is free. n keys that want all of it at once get
// 1/(n+1) each, and as much stays free for the next. A key alone gets half. What a key holds
// already is never taken back: keys that come one after the other get half of the rest each.
//
// It never waits: what is over a limit is refused, and the caller decides on the reply.
package limit

import "sync"

// Limit bounds how many are held at once. It is safe for concurrent use; make one with New.
type Limit[K comparable] struct {
	each, all int

	mu   sync.Mutex
	held map[K]int
	sum  int
}

// New returns a Limit of each per key and all in sum, which the keys share as the package describes; 0 or
// less is no limit. For one count without keys, use each alone.
func New[K comparable](each, all int) *Limit[K] {
	return &Limit[K]{each: each, all: all, held: map[K]int{}}
}

// Enter takes one for k, unless k has as many as it may, or as many as are free. leave gives it
// back: call it once or more often, from any goroutine; only the first call counts. leave is nil
// when ok is false.
func (l *Limit[K]) Enter(k K) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.each > 0 && l.held[k] >= l.each || l.all > 0 && l.held[k] >= l.all-l.sum {
		return nil, false
	}
	l.held[k]++
	l.sum++
	return sync.OnceFunc(func() { l.leave(k) }), true
}

func (l *Limit[K]) leave(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum--
	if l.held[k]--; l.held[k] == 0 {
		delete(l.held, k) // strangers choose keys: none is kept for nothing
	}
}

// Held is how many k has, and how many all have.
func (l *Limit[K]) Held(k K) (each, all int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[k], l.sum
}
