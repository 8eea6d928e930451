package store

import "sync"

// locks is a lock for each name that is in use, and none for the others.
type locks struct {
	mu   sync.Mutex
	held map[string]*nameLock
}

type nameLock struct {
	sync.RWMutex
	users int // guarded by locks.mu: who holds it or waits for it
}

func newLocks() *locks { return &locks{held: map[string]*nameLock{}} }

// lock waits for the name, and returns what releases it.
func (l *locks) lock(name string) (unlock func()) {
	n := l.enter(name)
	n.Lock()
	return func() { n.Unlock(); l.leave(name, n) }
}

// share is lock for readers, who share it.
func (l *locks) share(name string) (unlock func()) {
	n := l.enter(name)
	n.RLock()
	return func() { n.RUnlock(); l.leave(name, n) }
}

func (l *locks) enter(name string) *nameLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.held[name]
	if n == nil {
		n = &nameLock{}
		l.held[name] = n
	}
	n.users++
	return n
}

func (l *locks) leave(name string, n *nameLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(l.held, name)
	}
}
