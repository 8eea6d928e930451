package engine

import (
	"context"
	"hash/fnv"
	"sync"

	"lodge/gateway"
)

// gate admits requests to a VM's namespace until the VM is removed, and waits for those in
// progress.
type gate struct {
	mu   sync.Mutex
	gone map[gateway.ID]bool // removed; IDs are never used again
	live map[gateway.ID]int
	idle map[gateway.ID]chan struct{} // closed when the last one has left
}

func newGate() *gate {
	return &gate{gone: map[gateway.ID]bool{}, live: map[gateway.ID]int{}, idle: map[gateway.ID]chan struct{}{}}
}

// enter admits a request until leave; false for a VM that is removed.
func (g *gate) enter(id gateway.ID) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone[id] {
		return nil, false
	}
	g.live[id]++
	return func() { g.leave(id) }, true
}

func (g *gate) leave(id gateway.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.live[id]--; g.live[id] > 0 {
		return
	}
	delete(g.live, id)
	if idle := g.idle[id]; idle != nil {
		close(idle)
		delete(g.idle, id)
	}
}

// shut admits no more requests, and waits until all have left.
func (g *gate) shut(ctx context.Context, id gateway.ID) error {
	g.mu.Lock()
	g.gone[id] = true
	idle := g.idle[id]
	if g.live[id] > 0 && idle == nil {
		idle = make(chan struct{})
		g.idle[id] = idle
	}
	g.mu.Unlock()
	if idle == nil {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stripes are locks by name; two names may share one.
type stripes [64]sync.RWMutex

func (s *stripes) of(name string) *sync.RWMutex {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // a hash cannot fail
	return &s[h.Sum32()%uint32(len(s))]
}
