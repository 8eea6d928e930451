package deliver

import (
	"context"
	"errors"
	"sync"

	"lodge/gateway"
)

// turn is held by who may use a VM and move its cursor: the worker for a round, or who pauses it.
type turn struct {
	held sync.Mutex

	mu      sync.Mutex
	pausing int                // who waits for held to pause
	pauses  uint64             // so far
	cut     context.CancelFunc // ends the round in progress; nil before the first
}

var errPaused = errors.New("the delivery is paused")

// Pause ends what is being delivered to a VM, and delivers nothing until resume is called: what waits can be set back
// meanwhile. Then the worker begins anew, as after a start of the daemon.
func (r *Replica) Pause(id gateway.ID) (resume func()) {
	r.mu.Lock()
	t := r.turnOf(id)
	r.mu.Unlock()
	t.mu.Lock()
	t.pausing++
	if t.cut != nil {
		t.cut()
	}
	t.mu.Unlock()
	t.held.Lock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pausing--
	t.pauses++
	return t.held.Unlock
}

// turnOf returns the turn of a VM. The caller holds r.mu.
func (r *Replica) turnOf(id gateway.ID) *turn {
	if r.turns[id] == nil {
		r.turns[id] = &turn{}
	}
	return r.turns[id]
}

// begin begins a round. Its ctx ends with a pause. It returns how many pauses there were.
func (t *turn) begin(ctx context.Context) (_ context.Context, end func(), pauses uint64) {
	t.held.Lock()
	ctx, cut := context.WithCancel(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cut = cut; t.pausing > 0 {
		cut()
	}
	return ctx, func() {
		cut()
		t.held.Unlock()
	}, t.pauses
}
