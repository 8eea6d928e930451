// Package hold holds the writes of one VM back for a moment, while a checkpoint of it is made or
// restored. A write waits, but not for ever: its caller refuses it then, with "try again".
package hold

import (
	"sync"
	"time"
)

const (
	// DefaultWait is how long a write waits.
	DefaultWait = 5 * time.Second
	// DefaultLimit is how long one hold lasts at most. Whoever relies on one to its end, as a checkpoint does, gives
	// up clearly earlier.
	DefaultLimit = 15 * time.Second
)

// Gate is open unless somebody holds it. The zero value is open, with the defaults. It is safe for
// concurrent use.
type Gate struct {
	MaxWait, MaxHold time.Duration // 0: the defaults; set before the first use

	mu     sync.Mutex
	holds  int
	waits  int
	opened chan struct{} // closed when the last hold ends; nil: the gate is open
}

// Hold closes the gate until release is called, which may be called more than once. After MaxHold the
// hold ends by itself, and late is called.
func (g *Gate) Hold(late func()) (release func()) {
	g.enter()
	end := sync.OnceFunc(g.leave)
	limit := g.MaxHold
	if limit == 0 {
		limit = DefaultLimit
	}
	timer := time.AfterFunc(limit, func() {
		end()
		late()
	})
	return func() {
		timer.Stop()
		end()
	}
}

// While closes the gate until f returns.
func (g *Gate) While(f func() error) error {
	g.enter()
	defer g.leave()
	return f()
}

func (g *Gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holds++; g.holds == 1 {
		g.opened = make(chan struct{})
	}
}

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holds--; g.holds == 0 {
		close(g.opened)
		g.opened = nil
	}
}

// Held reports whether the gate is closed. A writer misses no hold if it calls Held under a lock that the holder
// takes, too, after Hold has returned.
func (g *Gate) Held() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened != nil
}

// Pass calls begin once the gate is open, again if begin found it held (see Held) and so returned
// false. It reports false if that takes longer than MaxWait.
func (g *Gate) Pass(begin func() bool) bool { return g.pass(begin, g.wait()) }

// Await is Pass without a limit of its own: it waits as long as the gate is held.
func (g *Gate) Await(begin func() bool) { g.pass(begin, 0) }

// pass is Pass with a limit; 0 is none.
func (g *Gate) pass(begin func() bool, limit time.Duration) bool {
	var late <-chan time.Time // made only if there is a hold
	for {
		g.mu.Lock()
		opened := g.opened
		g.mu.Unlock()
		if opened == nil {
			if begin() {
				return true
			}
			continue
		}
		if late == nil && limit > 0 {
			timer := time.NewTimer(limit)
			defer timer.Stop()
			late = timer.C
		}
		g.waiting(1)
		select {
		case <-opened:
			g.waiting(-1)
		case <-late:
			g.waiting(-1)
			return false
		}
	}
}

func (g *Gate) waiting(more int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waits += more
}

// Waiting returns how many writes wait.
func (g *Gate) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waits
}

func (g *Gate) wait() time.Duration {
	if g.MaxWait == 0 {
		return DefaultWait
	}
	return g.MaxWait
}
