package relay

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// notedFlag is on letters whose sender got the note of a delay.
const notedFlag = mailbox.Flagged

// letter is the record of one recipient, as memory has it.
type letter struct {
	uid     uint32
	queueID string
	to      string
	bytes   int64
	noted   bool // its sender got the note of a delay
	born    time.Time

	attempts int      // since the start
	last     *failure // of the last attempt; nil if there was none
}

// item is the letters of one message that go the same way, in one transaction.
type item struct {
	letters []letter
	next    time.Time // not before
	fails   int
}

// road is what a VM has for one destination: the domain of recipients, or the smarthost.
type road struct {
	lane  *lane
	dest  string
	items items
	out   []*item   // taken by its worker
	until time.Time // not before, after the destination itself has failed
	fails int
	state roadState
	timer *time.Timer // while it rests
	done  func()      // of its worker: gives its connection back
}

type roadState int

const (
	resting roadState = iota // until something is due
	ready                    // in lane.ready
	busy                     // with a worker
)

// lane is what a VM has in the queue.
type lane struct {
	vm      gateway.ID
	roads   map[string]*road
	ready   []*road // whose first item is due
	letters int
	bytes   int64
	limiter *rate.Limiter
	until   time.Time           // no worker begins before: the VM's rate is used up
	removed map[uint32]struct{} // letters that are with a worker and are not to come back
}

// items is a heap by next.
type items []*item

func (h items) Len() int           { return len(h) }
func (h items) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h items) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *items) Push(x any) { *h = append(*h, x.(*item)) }

// Pop implements heap.Interface.
func (h *items) Pop() any {
	last := len(*h) - 1
	it := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return it
}

func (q *Queue) lane(id gateway.ID) *lane {
	l, ok := q.lanes[id]
	if !ok {
		l = &lane{vm: id, roads: map[string]*road{}, removed: map[uint32]struct{}{}, limiter: rate.NewLimiter(q.config.Limits.RateOfVM, q.config.Limits.BurstOfVM)}
		q.lanes[id] = l
		q.order = append(q.order, l)
	}
	return l
}

// add schedules letters that are on disk. mu must be held.
func (q *Queue) add(id gateway.ID, letters []letter) {
	l := q.lane(id)
	grouped := map[string]*item{}
	now := time.Now()
	for _, m := range letters {
		l.letters++
		l.bytes += m.bytes
		dest := q.destination(m.to)
		key := messageOf(m.queueID) + dest
		if it, ok := grouped[key]; ok {
			it.letters = append(it.letters, m)
			continue
		}
		it := &item{letters: []letter{m}, next: now}
		grouped[key] = it
		r, ok := l.roads[dest]
		if !ok {
			r = &road{lane: l, dest: dest}
			l.roads[dest] = r
		}
		heap.Push(&r.items, it)
		if r.state == resting {
			q.plan(r)
		}
	}
	q.dispatch()
}

func (q *Queue) destination(to string) string {
	if q.config.Smarthost != nil {
		return q.config.Smarthost.Addr
	}
	return domainOf(to)
}

// domainOf returns the domain of an address in lower case.
func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}

// plan has a road that rests wait until its first item is due, and removes it when it has none.
func (q *Queue) plan(r *road) {
	r.state = resting
	if r.timer != nil {
		r.timer.Stop() // if it fires all the same, nothing is due
		r.timer = nil
	}
	if len(r.items) == 0 {
		if r.lane.roads[r.dest] == r {
			delete(r.lane.roads, r.dest)
		}
		return
	}
	due := r.items[0].next
	if r.until.After(due) {
		due = r.until
	}
	if wait := time.Until(due); wait > 0 {
		r.timer = time.AfterFunc(wait, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			if r.state == resting {
				q.plan(r)
				q.dispatch()
			}
		})
		return
	}
	r.state = ready
	r.lane.ready = append(r.lane.ready, r)
}

// dispatch starts workers for roads that are ready, the VMs in turns, until none can start. A VM that has
// all its connections is passed over, and so is a destination; of these there are never more than
// connections. mu must be held.
func (q *Queue) dispatch() {
	if q.begin == nil || q.until.After(time.Now()) {
		return
	}
	for passed := 0; passed < len(q.order); passed++ {
		q.turn = (q.turn + 1) % len(q.order)
		if q.startOne(q.order[q.turn]) {
			passed = -1
		}
	}
}

// startOne starts a worker for the VM, if it may have one more.
func (q *Queue) startOne(l *lane) bool {
	if len(l.ready) == 0 || l.until.After(time.Now()) {
		return false
	}
	leave, ok := q.connections.Enter(l.vm)
	if !ok {
		return false
	}
	for i, r := range l.ready {
		leaveDest, ok := q.perDest.Enter(r.dest)
		if !ok {
			continue
		}
		l.ready = slices.Delete(l.ready, i, i+1)
		r.state = busy
		r.done = func() { leaveDest(); leave() }
		q.begin(r)
		return true
	}
	leave()
	return false
}

// take returns the next item of a road that is due, or nil: after that, or when a rate is used up, others
// have their turn. A rate that several roads share makes them wait together, with one timer: each road would open a
// connection only to find the rate used up by another.
func (q *Queue) take(r *road) *item {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if len(r.items) == 0 || r.items[0].next.After(now) {
		return nil
	}
	rates := []struct {
		*rate.Limiter
		until *time.Time // of those who share it
	}{{r.lane.limiter, &r.lane.until}, {q.destLimiter(r.dest), &r.until}, {q.all, &q.until}}
	for _, l := range rates {
		missing := 1 - l.TokensAt(now)
		if missing <= 0 {
			continue
		}
		wait := time.Duration(missing / float64(l.Limit()) * float64(time.Second))
		if l.until != &r.until && !l.until.After(now) { // plan sees to the road itself
			time.AfterFunc(wait, func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.dispatch()
			})
		}
		*l.until = now.Add(wait)
		return nil
	}
	for _, l := range rates {
		l.AllowN(now, 1) // mu is held, so there is one
	}
	it := heap.Pop(&r.items).(*item)
	r.out = append(r.out, it)
	return it
}

// overdue returns the items of a road that are due, when its destination has failed.
func (q *Queue) overdue(r *road, why *failure) (all []*item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for now := time.Now(); len(r.items) > 0 && !r.items[0].next.After(now); {
		it := heap.Pop(&r.items).(*item)
		for i := range it.letters {
			it.letters[i].last = why
		}
		all = append(all, it)
	}
	r.out = append(r.out, all...)
	return all
}

// maxDests is how many destinations are kept, unless more have mail now.
const maxDests = 4096

func (q *Queue) destLimiter(dest string) *rate.Limiter {
	l, ok := q.dests[dest]
	if !ok {
		if len(q.dests) >= maxDests {
			for name, old := range q.dests { // a full bucket is as good as a new one
				if old.Tokens() >= float64(old.Burst()) {
					delete(q.dests, name)
				}
			}
		}
		l = rate.NewLimiter(q.config.Limits.RateOfDest, q.config.Limits.BurstOfDest)
		q.dests[dest] = l
	}
	return l
}

// keep puts back the letters of an item that still wait, and removes the others.
func (q *Queue) keep(r *road, it *item, waiting []letter, gone []letter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.out = slices.DeleteFunc(r.out, func(other *item) bool { return other == it })
	r.lane.uncount(gone)
	for _, m := range gone {
		delete(r.lane.removed, m.uid)
	}
	waiting = slices.DeleteFunc(slices.Clone(waiting), func(m letter) bool {
		_, is := r.lane.removed[m.uid]
		if is {
			delete(r.lane.removed, m.uid)
			r.lane.uncount([]letter{m})
		}
		return is
	})
	if len(waiting) > 0 {
		it.letters = waiting
		heap.Push(&r.items, it)
	}
}

// uncount takes letters from the counts.
func (l *lane) uncount(letters []letter) {
	for _, m := range letters {
		l.letters--
		l.bytes -= m.bytes
	}
}

// rest ends a worker's turn.
func (q *Queue) rest(r *road) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.done()
	q.plan(r)
	q.dispatch()
}

// drop removes a VM. mu must be held.
func (q *Queue) drop(id gateway.ID) {
	l, ok := q.lanes[id]
	if !ok {
		return
	}
	for _, r := range l.roads {
		r.items = nil
		if r.timer != nil {
			r.timer.Stop()
		}
	}
	l.ready, l.letters, l.bytes = nil, 0, 0
	delete(q.lanes, id)
	q.order = slices.DeleteFunc(q.order, func(other *lane) bool { return other == l })
	q.turn = 0
}

// pause is how long to wait after so many failures: it doubles, with a tenth more or less.
func (q *Queue) pause(fails int) time.Duration {
	t := q.config.Times
	p := t.RetryMin
	for i := 1; i < fails && p < t.RetryMax; i++ {
		p *= 2
	}
	p = min(p, t.RetryMax)
	return p + time.Duration((rand.Float64()-0.5)/5*float64(p)) // not a secret
}
