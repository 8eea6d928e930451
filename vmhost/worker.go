package vmhost

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
)

// worker reconciles one VM.
type worker struct {
	id   gateway.ID
	turn chan struct{} // holds a token while a verb or a reconcile acts on the VM
	due  chan struct{} // holds a token while a reconcile is due
	pace pace          // of automatic starts and resumes; guarded by turn

	nextMerge time.Time       // after one that failed or was interrupted; guarded by turn
	pulling   gateway.LayerID // into which QEMU was asked to merge; guarded by turn
	missed    bool            // that was looked for once in vain; guarded by turn

	inside  atomic.Bool  // a checkpoint that the VM itself asked for is being made
	rolling atomic.Bool  // a rollback was asked for, and is not done
	verbs   atomic.Int32 // that change the VM, or wait for their turn to

	mu       sync.Mutex
	running  bool      // its goroutine was started
	examined bool      // its state was read once, successfully or not
	tap      int       // interface index of the tap that this process has opened its listeners on
	starting bool      // a start is under way
	stopping int       // calls of Stop under way
	console  bool      // a client is connected to its console
	trouble  error     // the error of the last reconcile
	ended    int       // automatic starts in a row
	nextTry  time.Time // when a paced start is due
	started  time.Time // the last start by this process; zero if there was none
	logBytes int64     // size of the console log at that start
}

// worker finds or makes the worker of a VM.
func (h *Host) worker(id gateway.ID) *worker {
	h.mu.Lock()
	defer h.mu.Unlock()
	w, ok := h.vms[id]
	if !ok {
		w = &worker{id: id, turn: make(chan struct{}, 1), due: make(chan struct{}, 1)}
		h.vms[id] = w
	}
	return w
}

// removeWorker removes the worker of a VM that is gone. Its goroutine ends at the next wake.
func (h *Host) removeWorker(w *worker) {
	h.mu.Lock()
	delete(h.vms, w.id)
	h.mu.Unlock()
	w.wake()
}

// exclusively calls f while no other verb and no reconcile acts on the VM, and after a rollback that was
// interrupted is finished. f reads the VM's record itself: the record may have changed, or be gone, by the
// time of the call.
func (h *Host) exclusively(ctx context.Context, id gateway.ID, f func(*worker) error) error {
	w, err := h.begin(ctx, id)
	if err != nil {
		return err
	}
	return w.exclusively(ctx, func() error {
		if err := h.finishRollback(ctx, w); err != nil {
			return err
		}
		return f(w)
	})
}

// exclusively is for verbs that change the VM: who only looks at it makes room for them (see examineOff).
func (w *worker) exclusively(ctx context.Context, f func() error) error {
	w.verbs.Add(1)
	defer w.verbs.Add(-1)
	return w.inTurn(ctx, f)
}

func (w *worker) inTurn(ctx context.Context, f func() error) error {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
		return f()
	case <-ctx.Done():
		return gateway.Errorf(gateway.KindConflict, "another operation on the VM is in progress").
			WithHint("Try again in a moment; lodge ls shows the VM's state.").Because(ctx.Err())
	}
}

// wake makes the worker's goroutine reconcile the VM now.
func (w *worker) wake() {
	select {
	case w.due <- struct{}{}:
	default: // a reconcile is due already
	}
}

// startOnce reports, once, that the worker's goroutine has to be started.
func (w *worker) startOnce() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	first := !w.running
	w.running = true
	return first
}

// setIdentified records the interface index of the tap that the listeners are open on.
func (w *worker) setIdentified(tap int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tap = tap
}

// identifiedOn returns the interface index of the tap that the listeners are open on; 0 when there
// is none.
func (w *worker) identifiedOn() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tap
}

func (w *worker) setStarting(is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starting = is
}

// Console log sizes that differ from every real one: a guest that was restored from its saved memory
// may write nothing more, and one that was resumed from a template has written nothing yet.
const (
	restored = -1
	resumed  = -2
)

// startsNow records the time, and the size of the console log, for Wait.
func (w *worker) startsNow(logBytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started, w.logBytes = time.Now(), logBytes
}

// logSize is the size of a console log; 0 when there is none.
func logSize(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// lastStart returns what startsNow has recorded.
func (w *worker) lastStart() (at time.Time, logBytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.started, w.logBytes
}

// setTrouble records the outcome of a reconcile. changed reports whether it differs from the one
// before.
func (w *worker) setTrouble(err error) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed = text(w.trouble) != text(err)
	w.trouble = err
	return changed
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// situation is what Status needs from a worker.
type situation struct {
	trouble  error     // of the last reconcile
	starting bool      // a start is under way
	ended    int       // automatic starts in a row
	nextTry  time.Time // when a paced start is due
}

func (w *worker) situation() situation {
	w.mu.Lock()
	defer w.mu.Unlock()
	return situation{w.trouble, w.starting, w.ended, w.nextTry}
}

// setPace copies what Status shows of the pace, which the turn guards.
func (w *worker) setPace() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended, w.nextTry = w.pace.tries, w.pace.next()
}

func (w *worker) setExamined() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.examined = true
}

func (w *worker) isExamined() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.examined
}

func (w *worker) claimConsole() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	free := !w.console
	w.console = true
	return free
}

func (w *worker) leaveConsole() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.console = false
}
