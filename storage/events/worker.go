package events

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"lodge/gateway"
	"lodge/gateway/post"
	"lodge/storage/s3"
	"lodge/storage/store"
)

const (
	pageEvents = 100
	// scanPause is the least time between two readings of what waits, while a target has failed: each may read all
	// events of the VM, and a write may wake its worker at any time.
	scanPause = 200 * time.Millisecond
)

// worker delivers the events of one VM.
type worker struct {
	config Config
	vm     gateway.ID
	wake   chan struct{} // holds one
	hurry  atomic.Bool   // all is due
	held   map[string]*pause
	failed bool // the last attempt of any target has
}

// pause is that of a target that has failed.
type pause struct {
	length time.Duration
	until  time.Time
}

func newWorker(config Config, vm gateway.ID) *worker {
	return &worker{config: config, vm: vm, wake: make(chan struct{}, 1), held: map[string]*pause{}}
}

func (w *worker) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // one is enough
	}
}

// run delivers until nothing waits, and leave agrees, or ctx ends.
func (w *worker) run(ctx context.Context, leave func(*worker) bool) {
	for ctx.Err() == nil {
		if w.hurry.Swap(false) {
			clear(w.held)
		}
		waiting, err := w.round(ctx)
		switch {
		case ctx.Err() != nil:
			leave(w)
			return
		case err != nil:
			w.config.Logger.Warn("events of buckets not read", slog.String("vm_id", w.vm.String()), slog.Any("err", err))
			w.rest(ctx, w.config.Times.RetryMax)
		case waiting:
			w.rest(ctx, w.untilDue())
		case leave(w):
			return
		}
	}
	leave(w)
}

// rest waits for a time, or until it is woken, but for scanPause at least.
func (w *worker) rest(ctx context.Context, d time.Duration) {
	least, due := time.NewTimer(scanPause), time.NewTimer(d)
	defer least.Stop()
	defer due.Stop()
	select {
	case <-ctx.Done():
		return
	case <-least.C:
	}
	select {
	case <-ctx.Done():
	case <-w.wake:
	case <-due.C:
	}
}

// untilDue returns how long no target is due.
func (w *worker) untilDue() time.Duration {
	next := w.config.Times.RetryMax
	for _, p := range w.held {
		next = min(next, time.Until(p.until))
	}
	return max(next, 0)
}

// errStop ends a round: what is left is tried later.
var errStop = errors.New("not now")

// round goes once over all that waits, and delivers what is due. It reports whether something still waits.
func (w *worker) round(ctx context.Context) (waiting bool, err error) {
	late := map[string]bool{} // targets of what waits: later events for them wait, too, even if they come to be due
	for after := uint64(0); ; {
		page, err := w.config.Queue.Events(w.vm, after, pageEvents)
		if errors.Is(err, store.ErrUnfinished) || errors.Is(err, store.ErrRemoved) {
			return !errors.Is(err, store.ErrRemoved), nil
		}
		if err != nil {
			return true, err
		}
		if len(page.Events) == 0 {
			maps.DeleteFunc(w.held, func(target string, _ *pause) bool { return !late[target] })
			return len(late) > 0, nil
		}
		for _, e := range page.Events {
			after = e.Number
			if err := w.one(ctx, page, e, late); errors.Is(err, errStop) || ctx.Err() != nil {
				return true, nil
			} else if err != nil {
				return true, err
			}
		}
	}
}

// one delivers an event, or adds its target to those that are late.
func (w *worker) one(ctx context.Context, page store.EventPage, e store.Event, late map[string]bool) error {
	target, asked, err := w.target(e)
	if err != nil {
		return err
	}
	if asked {
		m, ok := w.config.Directory.ByID(w.vm)
		if !ok || m.Desired != gateway.Running {
			return errStop // a change of the record wakes the worker
		}
		if p := w.held[target]; late[target] || p != nil && time.Now().Before(p.until) {
			late[target] = true
			return nil
		}
		if err := w.post(ctx, m, target, page.Dropped, e); err != nil {
			late[target] = true
			w.hold(m, target, err)
			return nil
		}
		w.release(m, target)
	}
	err = w.config.Queue.EndEvents(page, e.Number)
	if errors.Is(err, store.ErrHeld) || errors.Is(err, store.ErrUnfinished) || errors.Is(err, store.ErrRemoved) {
		return errStop // it is delivered again, if it still waits then
	}
	return err
}

// target returns where an event goes: to the target of its rule, as that is now. A bucket that was deleted meanwhile has
// no rules; then the events of its end go where they would have gone.
func (w *worker) target(e store.Event) (target string, asked bool, err error) {
	b, err := w.config.Queue.Bucket(w.vm, e.Bucket)
	if errors.Is(err, store.ErrNoBucket) {
		return e.Rule.Target, true, nil
	}
	if err != nil {
		return "", false, err
	}
	target, asked = w.config.Target(&b, e.Rule.ID)
	return target, asked, nil
}

// post makes one attempt.
func (w *worker) post(ctx context.Context, m gateway.VM, target string, dropped int64, e store.Event) (err error) {
	defer func() {
		if p := recover(); p != nil { // over what the VM has answered
			w.config.Logger.Error("delivery of an event panicked", gateway.LogVM(m.Identity), slog.Any("err", p), slog.String("stack", string(debug.Stack())))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	port, path, ok := s3.ParseTargetARN(target)
	if !ok {
		return fmt.Errorf("not a target: %.100q", target)
	}
	body, err := s3.EncodeEvent(w.vm, e)
	if err != nil {
		return err
	}
	c := post.Client{Step: w.config.Times.Step, Dial: func(ctx context.Context) (net.Conn, error) { return w.config.Dial(ctx, m, port) }}
	return c.Do(ctx, post.Request{
		URL:  fmt.Sprintf("http://%s.%s:%d%s", m.Name, w.config.Domain, port, path),
		Body: bytes.NewReader(body), Bytes: int64(len(body)),
		Header: http.Header{
			"Content-Type": {"application/json"}, "User-Agent": {"lodged"}, "Idempotency-Key": {`"` + s3.Sequencer(e) + `"`},
			"X-Lodge-Event": {"s3:" + e.What}, "X-Lodge-Events-Dropped": {strconv.FormatInt(dropped, 10)},
		},
	})
}

// hold leaves a target alone for twice as long as the last time, plus or minus a quarter.
func (w *worker) hold(m gateway.VM, target string, err error) {
	p := w.held[target]
	if p == nil {
		p = &pause{}
		w.held[target] = p
	}
	p.length = min(max(2*p.length, w.config.Times.RetryMin), w.config.Times.RetryMax)
	jitter := time.Duration((rand.Float64() - 0.5) / 2 * float64(p.length)) //nolint:gosec // not a secret
	p.until = time.Now().Add(p.length + jitter)
	if !w.failed {
		w.config.Logger.Warn("event of a bucket not delivered", gateway.LogVM(m.Identity), slog.Any("err", err))
	}
	w.failed = true
}

func (w *worker) release(m gateway.VM, target string) {
	delete(w.held, target)
	if w.failed && len(w.held) == 0 {
		w.config.Logger.Info("events of buckets delivered again", gateway.LogVM(m.Identity))
		w.failed = false
	}
}
