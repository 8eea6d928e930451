package relay

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"lodge/gateway"
)

// maxShownBytes of a reply are in a list.
const maxShownBytes = 300

// List returns the letters that wait, of a VM or of all for the zero ID, the oldest first, at most limit. name
// gives the names of VMs.
func (q *Queue) List(id gateway.ID, limit int, name func(gateway.ID) string) []gateway.QueuedMail {
	all := []gateway.QueuedMail{} // an empty list is [] in JSON
	q.mu.Lock()
	for _, l := range q.lanesOf(id) {
		vm := name(l.vm)
		for _, r := range l.roads {
			for _, it := range r.out {
				all = append(all, it.shown(vm, time.Time{})...)
			}
			for _, it := range r.items {
				next := it.next
				if r.until.After(next) {
					next = r.until
				}
				all = append(all, it.shown(vm, next)...)
			}
		}
	}
	q.mu.Unlock()
	slices.SortFunc(all, func(a, b gateway.QueuedMail) int {
		return cmp.Or(a.Queued.Compare(b.Queued), cmp.Compare(a.QueueID, b.QueueID))
	})
	return all[:min(limit, len(all))]
}

// shown returns the letters of an item; next is none while it is with a worker.
func (it *item) shown(vm string, next time.Time) (all []gateway.QueuedMail) {
	if !next.After(time.Now()) {
		next = time.Time{}
	}
	for _, m := range it.letters {
		s := gateway.QueuedMail{VM: vm, QueueID: m.queueID, To: m.to, Bytes: m.bytes, Queued: m.born, Attempts: m.attempts, Next: next}
		if m.last != nil {
			s.Reply, s.Server = m.last.text[:min(len(m.last.text), maxShownBytes)], m.last.host
		}
		all = append(all, s)
	}
	return all
}

// lanesOf returns what a VM has, or all VMs for the zero ID. mu must be held.
func (q *Queue) lanesOf(id gateway.ID) []*lane {
	if id == (gateway.ID{}) {
		return q.order
	}
	if l, ok := q.lanes[id]; ok {
		return []*lane{l}
	}
	return nil
}

// WaitingOf is Waiting for one VM.
func (q *Queue) WaitingOf(id gateway.ID) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l, ok := q.lanes[id]; ok {
		return l.letters
	}
	return 0
}

// Oldest is when the oldest letter that waits was queued; the zero time if none does.
func (q *Queue) Oldest() (oldest time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.each(gateway.ID{}, func(_ *road, it *item) {
		if born := it.letters[0].born; oldest.IsZero() || born.Before(oldest) {
			oldest = born
		}
	})
	return oldest
}

// each calls f for each item, those with a worker too. mu must be held.
func (q *Queue) each(id gateway.ID, f func(*road, *item)) {
	for _, l := range q.lanesOf(id) {
		for _, r := range l.roads {
			for _, it := range slices.Concat(r.out, []*item(r.items)) {
				f(r, it)
			}
		}
	}
}

// Retry makes letters due now, of a VM or of all for the zero ID: those with these queue ids, or all without. The rates
// still hold. It returns how many.
func (q *Queue) Retry(id gateway.ID, queueIDs []string) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now, chosen := time.Now(), choice(queueIDs)
	for _, l := range q.lanesOf(id) {
		for _, r := range l.roads {
			before := n
			for _, it := range r.items {
				for _, m := range it.letters {
					if chosen(m) {
						it.next = now
						n++
					}
				}
			}
			if n == before {
				continue
			}
			heap.Init(&r.items)
			r.until = time.Time{}
			if r.state == resting {
				q.plan(r)
			}
		}
	}
	q.dispatch()
	return n
}

// choice reports of a letter whether it is among queueIDs; without these, all are.
func choice(queueIDs []string) func(letter) bool {
	chosen := make(map[string]struct{}, len(queueIDs))
	for _, id := range queueIDs {
		chosen[id] = struct{}{}
	}
	return func(m letter) bool {
		_, is := chosen[m.queueID]
		return is || len(queueIDs) == 0
	}
}

// RemoveLetters removes letters as Retry chooses them, durably and without a report. One that is with a worker may
// still arrive. It returns how many.
func (q *Queue) RemoveLetters(id gateway.ID, queueIDs []string) (n int, err error) {
	wanted, chosen := map[gateway.ID][]uint32{}, choice(queueIDs)
	q.mu.Lock()
	q.each(id, func(r *road, it *item) {
		for _, m := range it.letters {
			if chosen(m) {
				wanted[r.lane.vm] = append(wanted[r.lane.vm], m.uid)
			}
		}
	})
	q.mu.Unlock()
	for vm, uids := range wanted {
		box, err := q.store.Box(vm)
		if err == nil {
			err = box.Expunge(uids)
		}
		if err != nil {
			return n, err
		}
		q.dropLetters(vm, uids)
		n += len(uids)
	}
	return n, nil
}

// dropLetters takes letters that are expunged out of memory.
func (q *Queue) dropLetters(vm gateway.ID, uids []uint32) {
	gone := make(map[uint32]struct{}, len(uids))
	for _, uid := range uids {
		gone[uid] = struct{}{}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l, ok := q.lanes[vm]
	if !ok {
		return
	}
	for _, r := range l.roads {
		for _, it := range r.out {
			for _, m := range it.letters {
				if _, is := gone[m.uid]; is {
					l.removed[m.uid] = struct{}{} // keep drops it
				}
			}
		}
		for _, it := range r.items {
			it.letters = slices.DeleteFunc(it.letters, func(m letter) bool {
				_, is := gone[m.uid]
				if is {
					l.uncount([]letter{m})
				}
				return is
			})
		}
		r.items = slices.DeleteFunc(r.items, func(it *item) bool { return len(it.letters) == 0 })
		heap.Init(&r.items)
		if r.state == resting {
			q.plan(r)
		}
	}
	q.dispatch()
}
