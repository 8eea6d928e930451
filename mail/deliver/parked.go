package deliver

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// parked are the messages that delivery went on behind. Each has its own clock, which begins anew when
// the daemon or the VM starts.
type parked struct {
	mu     sync.Mutex
	loaded bool
	all    map[uint32]*late // by UID
	more   bool             // there are others in the mailbox
}

// late is one parked message.
type late struct {
	entry mailbox.Entry
	err   error // of the last attempt
	pause time.Duration
	next  time.Time
}

// maxParked messages have a clock. The others get theirs when half of these are delivered or removed.
const maxParked = 1000

// load reads which messages are parked: at the start, after reload, and when others can have a clock.
func (p *parked) load(box *mailbox.Box) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded && (!p.more || len(p.all) > maxParked/2) {
		return
	}
	if p.all == nil {
		p.all = map[uint32]*late{}
	}
	list := box.Parked(maxParked + 1)
	p.loaded, p.more = true, len(list) > maxParked
	for _, e := range list {
		if p.all[e.UID] == nil && len(p.all) < maxParked {
			p.all[e.UID] = &late{entry: e}
		}
	}
}

// reload makes the next load read all: others are parked.
func (p *parked) reload() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loaded = false
}

// clear removes all clocks, and makes the next load read all.
func (p *parked) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all, p.loaded, p.more = nil, false, false
}

// add takes a message whose attempt has failed.
func (p *parked) add(e mailbox.Entry, err error, times Times) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.all[e.UID]
	switch {
	case l == nil && len(p.all) >= maxParked:
		p.more = true
		return
	case l == nil:
		l = &late{entry: e}
		p.all[e.UID] = l
	}
	l.err = err
	l.pause = min(max(2*l.pause, times.RetryMin), times.ParkedMax)
	l.next = time.Now().Add(l.pause)
}

func (p *parked) remove(uid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, uid)
}

// first returns the message whose turn is the earliest.
func (p *parked) first() (uid uint32, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for u, l := range p.all {
		if uid == 0 || l.next.Before(next) || l.next.Equal(next) && u < uid {
			uid, next = u, l.next
		}
	}
	return uid, next
}

// due returns a message whose turn has come.
func (p *parked) due(now time.Time) (uid uint32, ok bool) {
	uid, next := p.first()
	if uid == 0 || next.After(now) {
		return 0, false
	}
	return uid, true
}

// wait is the time until the next turn.
func (p *parked) wait(now time.Time) time.Duration {
	uid, next := p.first()
	if uid == 0 {
		return math.MaxInt64
	}
	return next.Sub(now)
}

// hurry makes all due, and begins their clocks anew.
func (p *parked) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.all {
		l.next, l.pause = time.Time{}, 0
	}
}

// err returns why a message is parked; nil if there was no attempt yet.
func (p *parked) err(uid uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.all[uid]; l != nil {
		return l.err
	}
	return nil
}

// retry makes an attempt of a parked message.
func (w *worker) retry(ctx context.Context, box *mailbox.Box, m gateway.VM, uid uint32) error {
	w.parked.mu.Lock()
	e := w.parked.all[uid].entry
	w.parked.mu.Unlock()
	err := w.deliver(ctx, box, m, []mailbox.Entry{e})[0]
	if isConnect(err) || ctx.Err() != nil {
		return err
	}
	if err == nil {
		err = at(stageStore, box.Unpark(uid))
	}
	if err != nil {
		w.parked.add(e, err, w.config.Times)
		return err
	}
	w.parked.remove(uid)
	w.note(gateway.MailDelivered, box, e, nil)
	w.unmark(ctx, []mailbox.Entry{e})
	return nil
}

func isRefusal(err error) bool {
	_, is := errors.AsType[*Refusal](err)
	return is
}

// maxErrorBytes of an error are shown in lists: it has text of the guest.
const maxErrorBytes = 300

func shorten(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "\uFFFD")), " ")
	if len(s) <= maxErrorBytes {
		return s
	}
	s = s[:maxErrorBytes]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}
