package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// worker delivers one VM's mail, in rounds of a few messages.
type worker struct {
	config Config
	id     gateway.ID
	cancel context.CancelFunc
	wake   chan struct{} // holds one
	logger *slog.Logger

	delivered *atomic.Uint64 // the Replica's
	turn      *turn

	route   Route    // nil when not connected
	way     way      // of the route, or of the last one
	after   uint32   // the last message of a round that failed as a whole; 0 after any other
	reached uint32   // an earlier attempt may have been made of messages up to this
	marked  []string // messages whose marks are to be removed; see recorder
	lanes   laneBound
	parked  parked
	pause   time.Duration
	pauses  uint64 // of turn, that the worker has seen

	mu     sync.Mutex
	failed error            // the last failure; nil after a success
	errors map[uint32]error // of pending messages, by UID, since the last round that did not fail
}

// stage is a part of a delivery. A failure is logged when the failing stage changes, not when it
// repeats.
type stage string

const (
	stageStore   stage = "mailbox"
	stageVM      stage = "vm"
	stageConnect stage = "connect"
	stageMaildir stage = "maildir"
	stageWrite   stage = "write"
)

// stageError is an error with the stage that failed.
type stageError struct {
	stage stage
	err   error
}

func (e *stageError) Error() string { return string(e.stage) + ": " + e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

// stageOf returns the stage of an error.
func stageOf(err error) stage {
	if e, ok := errors.AsType[*stageError](err); ok {
		return e.stage
	}
	return stageStore
}

// isConnect reports whether the guest was not reached, so that no other message has a chance now.
func isConnect(err error) bool {
	return err != nil && (stageOf(err) == stageConnect || stageOf(err) == stageVM)
}

func at(s stage, err error) error {
	if err == nil {
		return nil
	}
	return &stageError{s, err}
}

func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // one is enough
	}
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context) {
	defer w.disconnect()
	for ctx.Err() == nil {
		box, err := w.config.Store.Await(ctx, w.id)
		if err != nil && ctx.Err() == nil {
			w.failure(at(stageStore, err))
			w.rest(ctx, nil)
		}
		if err != nil {
			continue
		}
		_, changed := box.Changed()
		worked, err := w.takeTurn(ctx, box)
		switch {
		case ctx.Err() != nil || errors.Is(err, errPaused):
		case !worked:
			w.idle(ctx, changed)
		case err == nil:
			w.success()
		default:
			w.failure(err)
			w.rest(ctx, changed)
		}
	}
}

// takeTurn works if there is something to do. It fails with errPaused if somebody pauses the delivery meanwhile.
func (w *worker) takeTurn(ctx context.Context, box *mailbox.Box) (worked bool, err error) {
	ctx, end, paused := w.turn.begin(ctx)
	defer end()
	if w.pauses != paused {
		w.pauses = paused
		w.restart()
	}
	w.parked.load(box)
	if w.reached == 0 {
		w.reached = box.Snapshot().NextUID - 1
	}
	next := w.next(box)
	late, isLate := w.parked.due(time.Now())
	if len(next) == 0 && !isLate {
		return false, nil
	}
	if err = w.work(ctx, box, next, late); ctx.Err() != nil {
		err = errPaused
	}
	return true, err
}

// restart ends what the worker has of the guest and of what waits: both may have changed.
func (w *worker) restart() {
	w.disconnect()
	w.after, w.reached, w.marked, w.pause = 0, 0, nil, 0
	w.lanes.reset()
	w.parked.clear()
	w.clearErrors()
}

// work makes a round, and an attempt of a parked message if one is due. It fails if neither brings any
// message further.
func (w *worker) work(ctx context.Context, box *mailbox.Box, next []mailbox.Entry, late uint32) error {
	m, ok := w.config.Directory.ByID(w.id)
	if !ok || m.Desired == gateway.Removed || m.Desired != gateway.Running && !wayInto(m).inHost {
		return at(stageVM, errors.New("the VM is not running"))
	}
	err := w.round(ctx, box, m, next)
	if late == 0 || isConnect(err) {
		return err
	}
	if retried := w.retry(ctx, box, m, late); isConnect(retried) {
		return retried
	}
	return err
}

// guarded calls talk, which uses a guest, and turns a panic over its answers into an error.
func (w *worker) guarded(talk func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			w.logger.Error("mail delivery panicked", "err", p, "stack", string(debug.Stack()))
			err = at(stageWrite, fmt.Errorf("panic: %v", p))
		}
	}()
	return talk()
}

// idle waits for mail, and closes an unused connection, at once or after Times.Idle.
func (w *worker) idle(ctx context.Context, changed <-chan struct{}) {
	if !w.way.keep {
		w.disconnect()
	}
	unused, late := time.NewTimer(w.config.Times.Idle), time.NewTimer(w.parked.wait(time.Now()))
	defer unused.Stop()
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-changed:
		case <-late.C:
		case <-w.wake:
			w.hurry()
		case <-unused.C:
			w.disconnect()
			continue
		}
		return
	}
}

// rest waits before the next attempt: twice as long as the last time, plus or minus a quarter. A
// change of the VM's record ends it at once; new mail ends it too, but not before RetryMin, so that
// a flood of mail is no flood of connections.
func (w *worker) rest(ctx context.Context, changed <-chan struct{}) {
	t := w.config.Times
	w.pause = min(max(2*w.pause, t.RetryMin), t.RetryMax)
	jitter := time.Duration((rand.Float64() - 0.5) / 2 * float64(w.pause)) // not a secret
	soon, late := time.NewTimer(t.RetryMin), time.NewTimer(w.pause+jitter)
	defer soon.Stop()
	defer late.Stop()
	select {
	case <-ctx.Done():
		return
	case <-w.wake:
		w.hurry()
		return
	case <-soon.C:
	}
	select {
	case <-ctx.Done():
	case <-w.wake:
		w.hurry()
	case <-changed:
	case <-late.C:
	}
}

// hurry makes everything due: the VM's record has changed, as it does at each start.
func (w *worker) hurry() {
	w.pause = 0
	w.lanes.reset()
	w.parked.hurry()
}

func (w *worker) disconnect() {
	if w.route != nil {
		w.route.Close()
		w.route = nil
	}
}

func (w *worker) success() {
	w.pause = 0
	if w.setFailed(nil) != nil {
		w.logger.Info("mail delivery resumed")
	}
}

// failure logs an error, unless the last one was of the same stage.
func (w *worker) failure(err error) {
	if last := w.setFailed(err); last == nil || stageOf(last) != stageOf(err) {
		w.logger.Warn("mail delivery failed", "err", err)
	}
}

func (w *worker) setFailed(err error) (last error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, w.failed = w.failed, err
	return last
}

// keepErrors keeps the errors of a group of messages. Others keep w.failed.
func (w *worker) keepErrors(group []mailbox.Entry, results []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range group {
		if results[i] != nil && len(w.errors) < maxErrors {
			w.errors[e.UID] = results[i]
		}
	}
}

func (w *worker) clearErrors() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.errors)
}

// why returns why a message waits; nil if no attempt has failed.
func (w *worker) why(uid uint32) error {
	if err := w.parked.err(uid); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.errors[uid]; err != nil {
		return err
	}
	return w.failed
}
