// Package limit counts what is held at once: connections, requests, transfers; per key and in all.
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

// New returns a Limit of each per key and all in sum; 0 or less is no limit.
func New[K comparable](each, all int) *Limit[K] {
	return &Limit[K]{each: each, all: all, held: map[K]int{}}
}

// Enter takes one for k, unless k or all have as many as they may. leave gives it back: call it once or more often, from any
// goroutine; only the first call counts. leave is nil when ok is false.
func (l *Limit[K]) Enter(k K) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all > 0 && l.sum >= l.all || l.each > 0 && l.held[k] >= l.each {
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
