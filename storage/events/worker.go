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
	failed bool // an attempt has, of what still waits
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
		case errors.Is(err, errSoon):
			w.rest(ctx, w.config.Times.RetryMin)
		case errors.Is(err, errOff):
			w.rest(ctx, w.config.Times.RetryMax)
		case err != nil:
			w.config.Logger.Warn("delivery of events interrupted", slog.String("vm_id", w.vm.String()), slog.Any("err", err))
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

// Why a round ends before all is tried.
var (
	errOff  = errors.New("the VM is off")                          // a change of its record wakes the worker
	errSoon = errors.New("what waits cannot be read or ended now") // a checkpoint or a rollback is under way
)

// soon is errSoon for what ends by itself, nil for a VM that is gone, and else err.
func soon(what string, err error) error {
	switch {
	case err == nil, errors.Is(err, store.ErrRemoved):
		return nil
	case errors.Is(err, store.ErrHeld), errors.Is(err, store.ErrUnfinished), errors.Is(err, store.ErrRestored):
		return errSoon
	}
	return fmt.Errorf("%s: %w", what, err)
}

// round is one pass over what waits.
type round struct {
	*worker
	late    map[string]bool           // targets of what waits: later events for them wait, too, even if they come to be due
	targets map[store.RuleOf]resolved // each is looked up once, and again after an attempt
}

type resolved struct {
	target string
	asked  bool
}

// round delivers what is due. It reports whether something still waits.
func (w *worker) round(ctx context.Context) (waiting bool, err error) {
	r := &round{worker: w, late: map[string]bool{}, targets: map[store.RuleOf]resolved{}}
	if all, err := r.allHeld(); all || err != nil {
		return true, err
	}
	for after := uint64(0); ; {
		page, err := w.config.Queue.Events(w.vm, after, pageEvents)
		if errors.Is(err, store.ErrRemoved) {
			return false, nil
		}
		if err != nil {
			return true, soon("read events", err)
		}
		if page.Last == 0 {
			maps.DeleteFunc(w.held, func(target string, _ *pause) bool { return !r.late[target] })
			w.delivered(r.late)
			return len(r.late) > 0, nil
		}
		if err := r.page(ctx, page); err != nil {
			return true, err
		}
		after = page.Last
	}
}

// allHeld reports whether all that waits is for targets that are held, none of which is due. It
// reads the rules of what waits: so a busy VM whose target fails costs little, and no event is
// missed, whatever its number. It is false with events of a bucket that is gone, which have their
// targets themselves.
func (r *round) allHeld() (bool, error) {
	if len(r.held) == 0 || r.untilDue() <= 0 {
		return false, nil
	}
	rules, err := r.config.Queue.EventRules(r.vm)
	if err != nil {
		return false, soon("read the rules of events", err)
	}
	for _, rule := range rules {
		to, err := r.rule(rule)
		if errors.Is(err, store.ErrNoBucket) {
			return false, nil
		}
		if err != nil || !to.asked || r.held[to.target] == nil {
			return false, err
		}
	}
	return len(rules) > 0, nil
}

// page delivers what is due of a page, and drops what cannot be decoded.
func (r *round) page(ctx context.Context, page store.EventPage) error {
	if n := len(page.Damaged); n > 0 {
		r.config.Logger.Error("events of buckets are damaged, and dropped", slog.String("vm_id", r.vm.String()), slog.Int("events", n))
		if err := soon("drop events", r.config.Queue.DropEvents(page, page.Damaged...)); err != nil {
			return err
		}
	}
	for _, e := range page.Events {
		if err := r.one(ctx, page, e); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errOff
		}
	}
	return nil
}

// one delivers an event, or adds its target to those that are late.
func (r *round) one(ctx context.Context, page store.EventPage, e store.Event) error {
	to, err := r.target(e)
	if err != nil {
		return err
	}
	if !to.asked {
		return soon("drop an event", r.config.Queue.DropEvents(page, e.Number))
	}
	m, ok := r.config.Directory.ByID(r.vm)
	if !ok || m.Desired != gateway.Running {
		return errOff
	}
	if p := r.held[to.target]; r.late[to.target] || p != nil && time.Now().Before(p.until) {
		r.late[to.target] = true
		return nil
	}
	if !r.config.Queue.Current(page) {
		return errSoon
	}
	delete(r.targets, store.RuleOf{Bucket: e.Bucket, ID: e.Rule.ID}) // an attempt takes a while
	if err := r.post(ctx, m, to.target, page.Dropped, e); err != nil {
		r.late[to.target] = true
		r.hold(m, to.target, err)
		return nil
	}
	delete(r.held, to.target)
	return soon("end an event", r.config.Queue.EndEvents(page, e.Number)) // it is delivered again, if it still waits then
}

// target returns where an event goes: to the target of its rule, as that is now. A bucket that was
// deleted meanwhile has no rules; then the events of its end go where they would have gone.
func (r *round) target(e store.Event) (resolved, error) {
	to, err := r.rule(store.RuleOf{Bucket: e.Bucket, ID: e.Rule.ID})
	if errors.Is(err, store.ErrNoBucket) {
		return resolved{e.Rule.Target, true}, nil
	}
	return to, err
}

// rule returns where the events of a rule go, or ErrNoBucket.
func (r *round) rule(at store.RuleOf) (to resolved, err error) {
	if to, ok := r.targets[at]; ok {
		return to, nil
	}
	b, err := r.config.Queue.Bucket(r.vm, at.Bucket)
	switch {
	case errors.Is(err, store.ErrNoBucket):
		return to, err
	case errors.Is(err, store.ErrDamaged): // nobody can read where they go
		r.config.Logger.Error("bucket is damaged, and its events dropped", slog.String("vm_id", r.vm.String()), slog.String("bucket", at.Bucket), slog.Any("err", err))
	case err != nil:
		return to, soon("read the bucket of an event", err)
	default:
		to.target, to.asked = r.config.Target(&b, at.ID)
	}
	r.targets[at] = to
	return to, nil
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
		w.config.Logger.Warn("event of a bucket not delivered", gateway.LogVM(m.Identity), slog.Any("err", forLog(err)))
	}
	w.failed = true
}

// delivered ends a failure of which nothing waits any more.
func (w *worker) delivered(late map[string]bool) {
	if w.failed && len(late) == 0 {
		w.config.Logger.Info("events of buckets delivered again", slog.String("vm_id", w.vm.String()))
		w.failed = false
	}
}

// forLog is an error of an attempt without what the guest has sent.
func forLog(err error) error {
	if answer, ok := errors.AsType[*post.StatusError](err); ok {
		return fmt.Errorf("HTTP %d", answer.Code)
	}
	return err
}
