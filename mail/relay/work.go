package relay

import (
	"context"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// maxConnecting is how long the addresses of a destination are tried, one after the other.
const maxConnecting = 4 * time.Minute

// maxTurn is how long a road keeps a connection, beside the limit of messages, while others wait for theirs.
const maxTurn = 30 * time.Second

// work sends what is due on a road, over one connection, until nothing is or others have their turn. No
// message begins after soft has ended; hard ends the connection.
func (q *Queue) work(soft, hard context.Context, r *road) {
	var s *session
	defer q.rest(r)
	defer func() {
		if s != nil {
			s.quit()
		}
	}()
	begun := time.Now()
	for n := 0; n < q.config.Limits.PerConnection && time.Since(begun) < maxTurn && soft.Err() == nil; n++ {
		it := q.take(r)
		if it == nil {
			return
		}
		if s = q.attempt(soft, hard, r, it, s); s == nil && r.fails > 0 {
			return
		}
	}
}

// attempt sends one item, by a session if there is one, and returns the session for the next.
func (q *Queue) attempt(soft, hard context.Context, r *road, it *item, s *session) *session {
	box, err := q.store.Box(r.lane.vm)
	if err != nil {
		q.unreadable(r, it, err)
		return s
	}
	content, err := box.Open(it.letters[0].uid)
	if err != nil {
		q.unreadable(r, it, err)
		return s
	}
	defer func() { _ = content.Close() }() // only read
	rec, message, err := openRecord(content)
	if err != nil {
		q.unreadable(r, it, err)
		return s
	}
	out := &outgoing{queue: q, box: box, road: r, item: it, record: rec, message: message, begun: time.Now()}
	s, failures, reached := q.guarded(hard, out, s)
	out.cut = !reached && hard.Err() != nil
	out.settle(failures)
	if reached {
		r.fails = 0
		return s
	}
	if out.cut {
		return nil
	}
	q.postpone(r)
	why := temporary("4.4.2", "the server ended the connection")
	if i := slices.IndexFunc(failures, func(f *failure) bool { return f != nil && !f.permanent }); i >= 0 {
		why = failures[i]
	}
	for _, other := range q.overdue(r, why) { // they would fail as this one has
		if soft.Err() != nil {
			q.keep(r, other, other.letters, nil)
			continue
		}
		q.giveUp(r, other, why)
	}
	return nil
}

// guarded is transmit; a panic, over what a server has sent, is a failure of the destination.
func (q *Queue) guarded(ctx context.Context, out *outgoing, s *session) (next *session, failures []*failure, reached bool) {
	defer func() {
		if p := recover(); p != nil {
			q.config.Logger.Error("mail transport panicked", "err", p, "stack", string(debug.Stack()))
			next, failures, reached = nil, repeat(temporary("4.3.0", "the transport failed"), len(out.item.letters)), false
		}
	}()
	return q.transmit(ctx, out, s)
}

// transmit sends a message. When the destination cannot be reached, or ends the connection, reached is
// false. A session that is no longer good is replaced once.
func (q *Queue) transmit(ctx context.Context, out *outgoing, s *session) (_ *session, failures []*failure, reached bool) {
	to := out.to()
	for {
		old := s != nil
		if !old {
			var failed *failure
			if s, failed = q.connect(ctx, out.road.dest); failed != nil {
				return nil, repeat(failed, len(to)), failed.permanent
			}
		}
		failures, broken := s.send(q, out.record, to, io.NewSectionReader(out.message, 0, out.message.Size()))
		if !broken {
			return s, failures, true
		}
		s.close()
		s = nil
		if !old || !out.unsent(failures) {
			return nil, failures, false
		}
	}
}

// connect opens a session with the first server of a destination that answers.
func (q *Queue) connect(ctx context.Context, dest string) (*session, *failure) {
	if q.config.Smarthost != nil {
		return q.openSmarthost(ctx)
	}
	servers, failed := q.route(ctx, dest)
	if failed != nil {
		return nil, failed
	}
	begun := time.Now()
	for _, server := range servers {
		var s *session
		if s, failed = q.open(ctx, server); failed == nil {
			return s, nil
		}
		if ctx.Err() != nil || time.Since(begun) > maxConnecting {
			break
		}
	}
	return nil, failed
}

// postpone has a road wait, since its destination has failed.
func (q *Queue) postpone(r *road) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.fails++
	r.until = time.Now().Add(q.pause(r.fails))
}

// giveUp settles an item whose destination has failed, if it has waited for long.
func (q *Queue) giveUp(r *road, it *item, f *failure) {
	box, err := q.store.Box(r.lane.vm)
	if err != nil {
		q.unreadable(r, it, err)
		return
	}
	out := &outgoing{queue: q, box: box, road: r, item: it, begun: time.Now()}
	if !out.late() {
		q.keep(r, it, it.letters, nil)
		return
	}
	content, err := box.Open(it.letters[0].uid)
	if err == nil {
		defer func() { _ = content.Close() }() // only read
		out.record, out.message, err = openRecord(content)
	}
	if err != nil {
		q.unreadable(r, it, err)
		return
	}
	out.settle(repeat(f, len(it.letters)))
}

// unreadable handles an item whose first letter cannot be read: one that is damaged stays on disk and is not tried again
// before the next start.
func (q *Queue) unreadable(r *road, it *item, err error) {
	log := q.config.Logger.With("vm_id", r.lane.vm.String(), "queue_id", it.letters[0].queueID, "err", err)
	switch {
	case gateway.KindOf(err) == gateway.KindNotFound: // it, or all of the VM, was removed
		q.keep(r, it, it.letters[1:], it.letters[:1])
	case mailbox.Damaged(err):
		log.Error("message not sent")
		q.keep(r, it, it.letters[1:], it.letters[:1])
	default:
		log.Warn("message not sent")
		it.fails++
		it.next = time.Now().Add(q.pause(it.fails))
		q.keep(r, it, it.letters, nil)
	}
}

func repeat(f *failure, n int) []*failure {
	all := make([]*failure, n)
	for i := range all {
		all[i] = f
	}
	return all
}

// outgoing is one attempt to send an item.
type outgoing struct {
	queue   *Queue
	box     *mailbox.Box
	road    *road
	item    *item
	record  record
	message *io.SectionReader
	begun   time.Time
	cut     bool // by the end of Run, which is no failure of the destination
}

func (o *outgoing) to() []string {
	all := make([]string, 0, len(o.item.letters))
	for _, m := range o.item.letters {
		all = append(all, m.to)
	}
	return all
}

// unsent reports whether no server can have the message. An older connection that ends before the message
// has begun is no failure of it.
func (o *outgoing) unsent(failures []*failure) bool {
	for _, f := range failures {
		if f == nil || f.maybe {
			return false
		}
	}
	return true
}

// late reports whether a failure now is one that the sender gets a report of.
func (o *outgoing) late() bool {
	for _, m := range o.item.letters {
		age := o.begun.Sub(m.born)
		if age > o.queue.config.Times.GiveUp || age > o.queue.config.Times.Delayed && !m.noted {
			return true
		}
	}
	return false
}

// settle records what has become of each recipient: those who have the message and those who never will
// leave the queue, the latter after the report on them is on disk. What cannot be recorded stays.
func (o *outgoing) settle(failures []*failure) {
	var done, failed, slow, waiting []letter
	var why, slowWhy []*failure
	for i, m := range o.item.letters {
		f := failures[i]
		m.attempts, m.last = m.attempts+1, f
		switch age := o.begun.Sub(m.born); {
		case f == nil:
			done = append(done, m)
		case o.cut:
			waiting = append(waiting, m)
			continue
		case f.permanent || age > o.queue.config.Times.GiveUp:
			failed, why = append(failed, m), append(why, f)
		case age > o.queue.config.Times.Delayed && !m.noted:
			slow, slowWhy = append(slow, m), append(slowWhy, f)
		default:
			waiting = append(waiting, m)
		}
		o.log(m, f, len(failed) > 0 && failed[len(failed)-1].uid == m.uid)
	}
	gone := done
	if len(failed) > 0 {
		if err := o.report(failed, why, failed[0].queueID); err != nil {
			o.problem("report not stored", err)
			waiting = append(waiting, failed...)
			failed = nil
		}
		gone = append(gone, failed...)
	}
	waiting = append(waiting, o.note(slow, slowWhy)...)
	if err := o.box.Expunge(uidsOf(gone)); err != nil {
		o.problem("sent message not removed", err) // it is sent again after the next start
	}
	o.queue.sent.Add(uint64(len(done)))
	o.queue.failed.Add(uint64(len(failed)))
	o.item.fails++
	o.item.next = time.Now().Add(o.queue.pause(o.item.fails))
	o.queue.keep(o.road, o.item, waiting, gone)
}

// note sends the note of a delay, once: that it was sent is on disk before.
func (o *outgoing) note(slow []letter, why []*failure) []letter {
	if len(slow) == 0 {
		return nil
	}
	if err := o.box.SetFlags(uidsOf(slow), notedFlag, 0); err != nil {
		o.problem("delay not recorded", err)
		return slow
	}
	if err := o.report(slow, why, mailbox.NewQueueID(o.begun)); err != nil {
		o.problem("report not stored", err)
	}
	for i := range slow {
		slow[i].noted = true
	}
	return slow
}

func uidsOf(letters []letter) []uint32 {
	all := make([]uint32, 0, len(letters))
	for _, m := range letters {
		all = append(all, m.uid)
	}
	return all
}

func (o *outgoing) logger() *slog.Logger {
	return o.queue.config.Logger.With(gateway.LogVM(o.record.VM), "from", o.record.From, "duration", time.Since(o.begun))
}

// log records what became of a letter; failed means that it is not tried again.
func (o *outgoing) log(m letter, f *failure, failed bool) {
	log := o.logger().With("queue_id", m.queueID, "rcpt", m.to, "bytes", m.bytes)
	event := gateway.MailEvent{Kind: gateway.MailSent, QueueID: m.queueID, From: o.record.From, To: m.to, Remote: o.road.dest, Bytes: m.bytes}
	if f != nil {
		event.Kind, event.Remote, event.Reply = gateway.MailDelayed, f.host, f.text
		if failed {
			event.Kind = gateway.MailFailed
		}
	}
	o.queue.config.Journal.Add(o.road.lane.vm, event)
	switch {
	case f == nil:
		log.Info("message sent", "host", o.road.dest)
	case failed:
		log.Warn("message failed", "host", f.host, "status", f.status, "err", f)
	default:
		log.Info("message delayed", "host", f.host, "status", f.status, "err", f)
	}
}

func (o *outgoing) problem(what string, err error) {
	o.logger().Error("queue not changed", "op", what, "queue_id", o.item.letters[0].queueID, "err", err)
}
