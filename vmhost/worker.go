package vmhost

import (
	"context"
	"fmt"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/vmhost/libvirt"
)

// A worker looks at its VM every lookEvery though nothing hints at a change, and after an error every retryAfter.
const (
	lookEvery  = time.Minute
	retryAfter = 15 * time.Second
)

// worker looks after one VM.
type worker struct {
	id   gateway.ID
	turn chan struct{} // holds a token while somebody acts on the VM
	wake chan struct{} // holds a token while a look is due
	pace pace          // of automatic starts and resumes; guarded by turn

	mu       sync.Mutex
	hired    bool      // its goroutine was started
	named    bool      // this process has put its tap and doors in place
	starting bool      // a start is under way
	console  bool      // somebody is at its console
	trouble  error     // what the last look met
	started  time.Time // the last start by this process; zero if there was none
	logBytes int64     // size of the console log at that start
}

// worker finds or makes the worker of a VM.
func (h *Host) worker(id gateway.ID) *worker {
	h.mu.Lock()
	defer h.mu.Unlock()
	w, ok := h.vms[id]
	if !ok {
		w = &worker{id: id, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
		h.vms[id] = w
	}
	return w
}

// dismiss forgets the worker of a VM that is gone.
func (h *Host) dismiss(id gateway.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.vms, id)
}

// hire reports, once, that the worker's goroutine is to be started.
func (w *worker) hire() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := !w.hired
	w.hired = true
	return first
}

func (w *worker) identified() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.named = true
}

func (w *worker) isIdentified() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.named
}

func (w *worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default: // a look is due already
	}
}

// take waits for the turn to act on the VM; the caller must call done.
func (w *worker) take(ctx context.Context) (done func(), err error) {
	select {
	case w.turn <- struct{}{}:
		return func() { <-w.turn }, nil
	case <-ctx.Done():
		return nil, gateway.Errorf(gateway.KindConflict, "the VM is busy with something else").
			WithHint("lodge ls shows what it is doing; try again in a moment.").Because(ctx.Err())
	}
}

// work looks at the VM whenever it is woken and when it is time, until ctx ends or the VM is gone.
func (h *Host) work(ctx context.Context, w *worker) {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-due.C:
		}
		if _, ok := h.dir.ByID(w.id); !ok {
			return
		}
		due.Reset(h.attend(ctx, w))
	}
}

// attend looks once, keeps what went wrong for Status, and says when to look again unasked.
func (h *Host) attend(ctx context.Context, w *worker) time.Duration {
	again, err := h.reconcile(ctx, w)
	w.mu.Lock()
	known := fmt.Sprint(w.trouble) == fmt.Sprint(err)
	w.trouble = err
	w.mu.Unlock()
	if err != nil && !known && ctx.Err() == nil { // said once, however often it is tried
		h.log.ErrorContext(ctx, "VM is not as it ought to be", "vm", h.name(w.id), "err", err)
	}
	switch {
	case again > 0:
		return again
	case err != nil:
		return retryAfter
	default:
		return lookEvery
	}
}

func (h *Host) name(id gateway.ID) string {
	m, _ := h.dir.ByID(id)
	return m.Name
}

// reconcile brings the VM one step towards what is desired of it.
func (h *Host) reconcile(ctx context.Context, w *worker) (again time.Duration, err error) {
	done, err := w.take(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	m, ok := h.dir.ByID(w.id)
	if !ok {
		return 0, nil
	}
	if m.Desired == gateway.Removed {
		return 0, h.takeAway(ctx, w, m.Identity)
	}
	state, err := h.virt.State(ctx, m.ID)
	if err != nil {
		return 0, err
	}
	if m.Desired == gateway.Stopped {
		return 0, h.keepStopped(ctx, m, state)
	}
	return h.keepRunning(ctx, w, m, state)
}

// keepRunning starts a VM that has ended, unless its guest has powered itself off: then it is to stay stopped.
func (h *Host) keepRunning(ctx context.Context, w *worker, m gateway.VM, state libvirt.State) (again time.Duration, err error) {
	switch state {
	case libvirt.PoweredOff:
		h.log.InfoContext(ctx, "VM was powered off from inside", "vm", m.Name)
		if _, err := h.desire(ctx, m.ID, gateway.Stopped); err != nil {
			return 0, err
		}
		return 0, h.virt.Undefine(ctx, m.ID)
	case libvirt.PausedFull:
		return w.pace.spaced(func() error { return h.virt.Resume(ctx, m.ID) })
	case libvirt.Absent, libvirt.Off:
		return w.pace.spaced(func() error {
			h.log.InfoContext(ctx, "VM is started, as it ought to run", "vm", m.Name)
			return h.bringUp(ctx, w)
		})
	default:
		return 0, h.identify(ctx, w, m.Identity)
	}
}

// keepStopped presses the power button of a VM that runs, gently, at every look, and clears away what has ended.
func (h *Host) keepStopped(ctx context.Context, m gateway.VM, state libvirt.State) error {
	switch state {
	case libvirt.Running:
		return h.virt.Shutdown(ctx, m.ID, true)
	case libvirt.Off, libvirt.PoweredOff:
		return h.virt.Undefine(ctx, m.ID)
	default:
		return nil
	}
}

// pace spaces out what is tried again and again: at once, then after 1 s, 2 s, 4 s, up to 2 minutes. It starts over when
// nothing had to be tried for a while.
type pace struct {
	tries int
	last  time.Time
}

const (
	maxPace   = 2 * time.Minute
	paceReset = 10 * time.Minute
)

// spaced calls try, unless it is too early; again says when it would be the time.
func (p *pace) spaced(try func() error) (again time.Duration, err error) {
	now := time.Now()
	if now.Sub(p.last) > paceReset {
		p.tries = 0
	}
	if wait := p.wait(now); wait > 0 {
		return wait, nil
	}
	p.tries, p.last = p.tries+1, now
	err = try()
	return p.wait(time.Now()), err
}

func (p *pace) wait(now time.Time) time.Duration {
	if p.tries == 0 {
		return 0
	}
	space := min(time.Second<<min(p.tries-1, 10), maxPace)
	return max(0, p.last.Add(space).Sub(now))
}
