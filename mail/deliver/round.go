package deliver

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

const (
	window    = 16   // messages of a round
	maxMarked = 100  // marks that are to be removed and were not
	maxErrors = 1000 // of pending messages that are kept
)

// next returns the messages of the next round: the first that is pending, so that all go in order once
// the guest takes them, and those behind it. While rounds fail as a whole, each has others behind the
// first, so that no number of messages that cannot be delivered stops the rest.
func (w *worker) next(box *mailbox.Box) []mailbox.Entry {
	first, ok := box.Pending()
	if !ok {
		return nil
	}
	next := []mailbox.Entry{first}
	for after := max(w.after, first.UID); len(next) < window; after = next[len(next)-1].UID {
		e, ok := box.PendingAfter(after)
		if !ok {
			break
		}
		next = append(next, e)
	}
	return next
}

// round delivers messages, as many at once as the route takes. It fails if the guest is not reached, or
// if all of them fail. What succeeded is recorded in any case.
func (w *worker) round(ctx context.Context, box *mailbox.Box, m gateway.VM, next []mailbox.Entry) error {
	moved := len(next) == 0
	var failed error
	for group := range slices.Chunk(next, wayInto(m).width) {
		results := w.deliver(ctx, box, m, group)
		w.keepErrors(group, results)
		more, err := w.record(ctx, box, group, results)
		if err != nil {
			return at(stageStore, err)
		}
		moved = moved || more
		for _, err := range results {
			if isConnect(err) || ctx.Err() != nil {
				return err
			}
			if err != nil {
				failed = err
			}
		}
	}
	w.after = 0
	if moved {
		w.clearErrors()
		return nil
	}
	if len(next) == window {
		w.after = next[window-1].UID
	}
	return failed
}

// deliver makes one attempt of each message, at once, over one route.
func (w *worker) deliver(ctx context.Context, box *mailbox.Box, m gateway.VM, group []mailbox.Entry) []error {
	results := make([]error, len(group))
	if err := w.connect(ctx, box, m); err != nil {
		for i := range results {
			results[i] = err
		}
		return results
	}
	var all sync.WaitGroup
	took := make([]time.Duration, len(group)) // 0: the message is gone, or was not delivered
	for i, e := range group {
		again := e.UID <= w.reached
		w.reached = max(w.reached, e.UID)
		all.Go(func() { took[i], results[i] = w.attempt(ctx, box, e, again) })
	}
	all.Wait()
	w.settle(ctx, results)
	for i, e := range group {
		switch {
		case results[i] != nil:
			w.disconnect()
		case took[i] > 0:
			w.delivered.Add(1)
			w.logger.Info("message delivered", "queue_id", e.QueueID, "bytes", e.Bytes, "duration", took[i])
		}
	}
	return results
}

// settle does what the route leaves to be done for all messages of a group. If it fails, so do those that had not.
func (w *worker) settle(ctx context.Context, results []error) {
	s, ok := w.route.(settler)
	if !ok || !slices.Contains(results, nil) {
		return
	}
	err := w.guarded(func() error { return s.Settle(ctx) })
	for i := range results {
		if results[i] == nil {
			results[i] = err
		}
	}
}

// connect opens the route of the VM's settings, unless it is open. Marks that a crash left in the guest
// are removed.
func (w *worker) connect(ctx context.Context, box *mailbox.Box, m gateway.VM) error {
	if w.way.setting != m.Mail.Route {
		w.disconnect()
	}
	if w.route != nil {
		return nil
	}
	w.way = wayInto(m)
	return w.guarded(func() (err error) {
		if w.route, err = w.way.open(ctx, w.config, m); err != nil {
			w.route = nil
			return err
		}
		if route, ok := w.route.(bounded); ok {
			route.bind(&w.lanes)
		}
		w.unmark(ctx, box.Passed(window))
		return nil
	})
}

// attempt delivers one message, and returns how long it took. One that was expunged meanwhile counts as delivered.
func (w *worker) attempt(ctx context.Context, box *mailbox.Box, e mailbox.Entry, again bool) (took time.Duration, err error) {
	from, rcpt, err := box.Envelope(e.UID)
	var content *mailbox.Content
	if err == nil {
		content, err = box.Open(e.UID)
	}
	switch {
	case gateway.KindOf(err) == gateway.KindNotFound:
		return 0, nil
	case mailbox.Damaged(err):
		return 0, &Refusal{at(stageStore, err)}
	case err != nil:
		return 0, at(stageStore, err)
	}
	defer func() { _ = content.Close() }() // only read
	start := time.Now()
	err = w.guarded(func() error {
		return w.route.Deliver(ctx, Message{QueueID: e.QueueID, From: from, Rcpt: rcpt, Bytes: e.Bytes, Again: again, Content: content})
	})
	return time.Since(start), err
}

// record moves the cursor over the messages that were delivered. What lies between them and was not is
// parked: it was refused, or it failed while a later one was delivered. It reports whether the cursor has
// moved.
func (w *worker) record(ctx context.Context, box *mailbox.Box, group []mailbox.Entry, results []error) (moved bool, err error) {
	byUID := map[uint32]error{}
	var last, done uint32 // the last to go over, the last delivered
	for i, e := range group {
		byUID[e.UID] = results[i]
		if results[i] == nil || isRefusal(results[i]) {
			last = e.UID
		}
	}
	for e, ok := box.Pending(); ok && e.UID <= last; e, ok = box.PendingAfter(e.UID) {
		err, tried := byUID[e.UID]
		if tried && err == nil {
			done = e.UID
			continue
		}
		if ctx.Err() != nil { // it was cut off
			break
		}
		if !tried {
			err = w.why(e.UID) // in an earlier round
		}
		if err := box.Park(e.UID); err != nil {
			return moved, err
		}
		w.parked.add(e, err, w.config.Times)
		w.logger.Warn("message parked", "queue_id", e.QueueID, "err", err)
		w.note(gateway.MailParked, box, e, err)
		moved = true
	}
	if done == 0 {
		return moved, nil
	}
	if err := box.Delivered(done); err != nil {
		return moved, err
	}
	var recorded []mailbox.Entry
	for _, e := range group {
		if e.UID <= done && byUID[e.UID] == nil {
			recorded = append(recorded, e)
			w.note(gateway.MailDelivered, box, e, nil)
		}
	}
	w.unmark(ctx, recorded)
	return true, nil
}

// note records in the VM's log what has become of a message. One that was expunged is left out.
func (w *worker) note(kind gateway.MailEventKind, box *mailbox.Box, e mailbox.Entry, why error) {
	if w.config.Journal == nil {
		return
	}
	from, rcpt, err := box.Envelope(e.UID)
	if gateway.KindOf(err) == gateway.KindNotFound {
		return
	}
	event := gateway.MailEvent{Kind: kind, QueueID: e.QueueID, From: from, To: rcpt, Bytes: e.Bytes}
	if why != nil {
		event.Reply = shorten(why.Error())
	}
	w.config.Journal.Add(w.id, event)
}

// unmark removes a route's marks of messages that are recorded.
func (w *worker) unmark(ctx context.Context, recorded []mailbox.Entry) {
	marks, ok := w.route.(recorder)
	for _, e := range recorded {
		w.marked = append(w.marked, e.QueueID)
	}
	if len(w.marked) == 0 {
		return
	}
	var failed atomic.Bool
	var all sync.WaitGroup
	for _, id := range w.marked {
		if !ok {
			break
		}
		all.Go(func() {
			if w.guarded(func() error { return marks.Recorded(ctx, id) }) != nil {
				failed.Store(true)
			}
		})
	}
	all.Wait()
	if failed.Load() && len(w.marked) <= maxMarked {
		return // the next attempt is made with the next message, or the next connection
	}
	w.marked = nil
}
