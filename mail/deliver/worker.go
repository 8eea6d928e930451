package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// worker delivers one VM's mail, one message at a time.
type worker struct {
	config Config
	id     gateway.ID
	cancel context.CancelFunc
	wake   chan struct{} // holds one
	logger *slog.Logger

	delivered *atomic.Uint64 // the Replica's

	route  Route // nil when not connected
	failed stage // the stage that was logged as failing; "" after a success
	pause  time.Duration
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
		if e, waiting := box.Pending(); !waiting {
			w.idle(ctx, changed)
		} else if err := w.attempt(ctx, box, e); err == nil {
			w.success()
		} else if ctx.Err() == nil {
			w.disconnect()
			w.failure(err)
			w.rest(ctx, changed)
		}
	}
}

// attempt delivers one message and moves the cursor.
func (w *worker) attempt(ctx context.Context, box *mailbox.Box, e mailbox.Entry) error {
	m, ok := w.config.Directory.ByID(w.id)
	if !ok || m.Desired != gateway.Running {
		return at(stageVM, errors.New("the VM is not running"))
	}
	content, err := box.Open(e.UID)
	if gateway.KindOf(err) == gateway.KindNotFound {
		return nil // expunged meanwhile; the next one is pending now
	}
	if mailbox.Damaged(err) {
		w.logger.Error("message not delivered", "queue_id", e.QueueID, "err", err)
		return at(stageStore, box.Park(e.UID))
	}
	if err != nil {
		return at(stageStore, err)
	}
	defer func() { _ = content.Close() }() // only read
	start := time.Now()
	err = w.guarded(func() (err error) {
		if w.route == nil {
			if w.route, err = openRoute(ctx, w.config, m); err != nil {
				return err
			}
		}
		return w.route.Deliver(ctx, e.QueueID, content, e.Bytes)
	})
	if err != nil {
		return err
	}
	if err := box.Delivered(e.UID); err != nil {
		return at(stageStore, err)
	}
	w.delivered.Add(1)
	w.logger.Info("message delivered", "queue_id", e.QueueID, "bytes", e.Bytes, "duration", time.Since(start))
	return nil
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

// idle waits for mail, and closes an unused connection after Times.Idle.
func (w *worker) idle(ctx context.Context, changed <-chan struct{}) {
	timer := time.NewTimer(w.config.Times.Idle)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-w.wake:
	case <-timer.C:
		w.disconnect()
		select {
		case <-ctx.Done():
		case <-changed:
		case <-w.wake:
		}
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
		w.pause = 0
		return
	case <-soon.C:
	}
	select {
	case <-ctx.Done():
	case <-w.wake:
		w.pause = 0
	case <-changed:
	case <-late.C:
	}
}

func (w *worker) disconnect() {
	if w.route != nil {
		w.route.Close()
		w.route = nil
	}
}

func (w *worker) success() {
	w.pause = 0
	if w.failed != "" {
		w.failed = ""
		w.logger.Info("mail delivery resumed")
	}
}

func (w *worker) failure(err error) {
	s := stageStore
	if e, ok := errors.AsType[*stageError](err); ok {
		s = e.stage
	}
	if s != w.failed {
		w.failed = s
		w.logger.Warn("mail delivery failed", "err", err)
	}
}
