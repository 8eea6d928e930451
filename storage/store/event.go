package store

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// maxEvents is how many events of a VM may wait. A write above it succeeds; its event is dropped and counted.
// One rule of a bucket may have a quarter of them: a target that fails costs others no events.
const (
	maxEvents = 10_000
	ruleShare = 4
)

// What happened to an object, as S3 names it.
const (
	CreatedByPut     = "ObjectCreated:Put"
	CreatedByPost    = "ObjectCreated:Post"
	CreatedByCopy    = "ObjectCreated:Copy"
	CreatedFromParts = "ObjectCreated:CompleteMultipartUpload"
	RemovedForGood   = "ObjectRemoved:Delete"
	RemovedByMarker  = "ObjectRemoved:DeleteMarkerCreated"
	ExpiredForGood   = "LifecycleExpiration:Delete"
	ExpiredByMarker  = "LifecycleExpiration:DeleteMarkerCreated"
)

// Rule is the part of a bucket's configuration that asks for an event. Both texts are opaque here.
type Rule struct {
	ID     string // in the bucket's configuration
	Target string // at the time of the event
}

// Event is a change of an object that waits to be delivered. It is in the batch of that change: there is neither one
// without the other.
type Event struct {
	Number       uint64 // of one object, a later one has a larger number
	Bucket, Name string
	What         string
	Time         time.Time
	Size         int64
	ETag         string
	Version      string // "" if the bucket has never had versions
	Rule         Rule
}

// EventPage is some of the events of a VM that wait.
type EventPage struct {
	Events  []Event  // in the order of their numbers
	Damaged []uint64 // numbers of records that cannot be decoded
	Last    uint64   // the last number of both; 0 if the page is empty
	Dropped int64    // of this VM so far: see maxEvents and DropEvents
	vm      gateway.ID
	turns   uint64 // of the account, see moment
}

func (e *Event) encode() []byte {
	w := newEncoder()
	w.text(e.Bucket)
	w.text(e.Name)
	w.text(e.What)
	w.time(e.Time)
	w.int(e.Size)
	w.text(e.ETag)
	w.text(e.Version)
	w.text(e.Rule.ID)
	w.text(e.Rule.Target)
	return w.b
}

func decodeEvent(number uint64, b []byte) (Event, error) {
	d := newDecoder(b)
	e := Event{Number: number, Bucket: d.text(), Name: d.text(), What: d.text(), Time: d.time(), Size: d.int(), ETag: d.text()}
	e.Version, e.Rule.ID, e.Rule.Target = d.text(), d.text(), d.text()
	return e, d.end("an event")
}

func eventKey(vm gateway.ID, number uint64) []byte { return numKey(vm, kindEvent, number) }

func droppedKey(vm gateway.ID) []byte { return vmKey(vm, kindDropped, 0) }

// created makes v the latest version of its key, with its event.
func (x *tx) created(b *Bucket, v *version, what string) error {
	if err := x.write(b, v); err != nil {
		return err
	}
	return x.event(b, v.Object, what)
}

// event adds an event to the commit if the bucket's configuration asks for it.
func (x *tx) event(b *Bucket, o Object, what string) error {
	rule, asked := x.s.cfg.Rule(b, what, o.Key.Name)
	if !asked {
		return nil
	}
	at := RuleOf{b.Name, rule.ID}
	if !x.a.queue(at, x.s.maxEvents) {
		return x.b.Merge(droppedKey(x.a.vm), encodeSum(1), nil)
	}
	x.queued = append(x.queued, at)
	number, err := x.s.ids.take()
	if err != nil {
		return err
	}
	e := Event{Bucket: b.Name, Name: o.Key.Name, What: what, Time: x.s.cfg.Now().UTC(), Size: o.Size, ETag: o.ETag, Rule: rule}
	if b.Versioning != Unversioned {
		e.Version = o.Version
	}
	return x.b.Set(eventKey(x.a.vm, number), e.encode(), nil)
}

// removal is the event of a deletion whose result is o.
func (d Deletion) removal(o Object) string {
	marked := o.Deleted && d.Version == ""
	switch {
	case d.Expired && marked:
		return ExpiredByMarker
	case d.Expired:
		return ExpiredForGood
	case marked:
		return RemovedByMarker
	}
	return RemovedForGood
}

// RuleOf is a rule that events wait for, as they are counted; zero for those that cannot be decoded.
type RuleOf struct{ Bucket, ID string }

func countedAs(number uint64, raw []byte) RuleOf {
	e, err := decodeEvent(number, raw)
	if err != nil {
		return RuleOf{}
	}
	return RuleOf{e.Bucket, e.Rule.ID}
}

// queue takes the place of one event that waits, if there is one for its rule.
func (a *account) queue(rule RuleOf, most int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := 0
	for _, n := range a.events {
		all += n
	}
	if all >= most || a.events[rule] >= max(1, most/ruleShare) {
		return false
	}
	a.events[rule]++
	return true
}

func (a *account) unqueue(rules []RuleOf) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, rule := range rules {
		if a.events[rule]--; a.events[rule] <= 0 {
			delete(a.events, rule)
		}
	}
}

func (a *account) setEvents(n map[RuleOf]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = n
}

func countEvents(r pebble.Reader, vm gateway.ID) (map[RuleOf]int, error) {
	n := map[RuleOf]int{}
	err := each(r, vmKey(vm, kindEvent, 0), func(key, raw []byte) error {
		n[countedAs(numIn(key), raw)]++
		return nil
	})
	return n, err
}

// Events returns events of a VM that wait, with numbers above after, at most most. Errors: ErrUnfinished.
func (s *Store) Events(vm gateway.ID, after uint64, most int) (page EventPage, err error) {
	a, err := s.account(vm)
	if err != nil {
		return page, err
	}
	page.vm, page.turns = vm, a.turns.Load() // before what is read: a restore since then makes EndEvents do nothing
	at, err := s.moment(vm)
	if err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, at.Close()) }()
	if m, err := readSum(at, droppedKey(vm)); err != nil {
		return page, err
	} else if len(m) > 0 {
		page.Dropped = m[0]
	}
	it, err := at.NewIter(&pebble.IterOptions{LowerBound: eventKey(vm, after+1), UpperBound: vmKey(vm, kindEvent+1, 0)})
	if err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid() && len(page.Events)+len(page.Damaged) < most; it.Next() {
		page.Last = numIn(it.Key())
		e, err := decodeEvent(page.Last, it.Value())
		if err != nil {
			page.Damaged = append(page.Damaged, page.Last)
			continue
		}
		page.Events = append(page.Events, e)
	}
	return page, it.Error()
}

// EventRules returns the rules of a VM that events wait for, in any order. The rule of an event is among them before the
// commit of that ends. Errors: ErrUnfinished.
func (s *Store) EventRules(vm gateway.ID) ([]RuleOf, error) {
	a, err := s.account(vm)
	if err == nil {
		err = a.readable()
	}
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Keys(a.events)), nil
}

// Current reports whether the VM's objects were not restored since a page was read: else its events may be about writes
// that are undone.
func (s *Store) Current(page EventPage) bool {
	a, err := s.account(page.vm)
	return err == nil && a.turns.Load() == page.turns
}

// EndEvents removes events of a page. It is not synced: after a crash they may wait again. If the VM's objects were
// restored since the page was read, it removes nothing, for the VM may not have them any more. Errors: ErrRestored,
// ErrHeld, ErrRemoved, ErrUnfinished, ErrFull.
func (s *Store) EndEvents(page EventPage, numbers ...uint64) error {
	return s.endEvents(page, false, numbers)
}

// DropEvents is EndEvents for events that were not delivered. They are counted as dropped.
func (s *Store) DropEvents(page EventPage, numbers ...uint64) error {
	return s.endEvents(page, true, numbers)
}

func (s *Store) endEvents(page EventPage, dropped bool, numbers []uint64) error {
	a, err := s.account(page.vm)
	if err != nil {
		return err
	}
	if err := a.begin(); err != nil {
		return err
	}
	defer a.commits.RUnlock()
	if a.turns.Load() != page.turns {
		return ErrRestored
	}
	x := s.begin(a)
	defer func() { _ = x.b.Close() }() // it is committed, or nothing of it counts
	var ended []RuleOf
	for _, n := range numbers {
		old, err := x.endEvent(n)
		if err != nil {
			return err
		}
		if old != nil {
			ended = append(ended, countedAs(n, old))
		}
	}
	if dropped && len(ended) > 0 {
		if err := x.b.Merge(droppedKey(page.vm), encodeSum(int64(len(ended))), nil); err != nil {
			return err
		}
	}
	x.unsynced = true
	if err := x.commit(); err != nil {
		return err
	}
	a.unqueue(ended)
	return nil
}

// endEvent removes an event, and returns its record, nil if there was none. The last snapshot keeps it if it waited then. Unlike
// other records, an event that is newer than the last snapshot leaves nothing in its history: see dropNewer.
func (x *tx) endEvent(number uint64) (old []byte, err error) {
	at := eventKey(x.a.vm, number)
	if old, err = x.present(at); err != nil || old == nil {
		return nil, err
	}
	if n := len(x.a.snaps); n > 0 && number < x.a.snaps[n-1].id {
		if _, err := x.keep(at, old); err != nil {
			return nil, err
		}
	}
	return old, x.b.Delete(at, nil)
}

// dropNewer removes, at the end of a restore, the events that are newer than its snapshot: what they are about has been
// undone. Those that waited then wait again: their records are reverted as others are.
func (s *Store) dropNewer(a *account, snapshot uint64) error {
	var newer []uint64
	err := each(s.index, vmKey(a.vm, kindEvent, 0), func(key, _ []byte) error {
		if len(key) != vmKeyLen+1+8 {
			return damaged("the key of an event cannot be read")
		}
		if n := binary.BigEndian.Uint64(key[vmKeyLen+1:]); n > snapshot {
			newer = append(newer, n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	x := s.begin(a)
	defer func() { _ = x.b.Close() }() // it is committed, or nothing of it counts
	for _, n := range newer {
		if _, err := x.endEvent(n); err != nil {
			return err
		}
	}
	if err := x.commit(); err != nil {
		return err
	}
	n, err := countEvents(s.index, a.vm)
	a.setEvents(n)
	return err
}

// EventVMs returns the VMs that have events waiting.
func (s *Store) EventVMs() (waiting []gateway.ID, err error) {
	vms, err := s.vms()
	if err != nil {
		return nil, err
	}
	for _, vm := range vms {
		err := each(s.index, vmKey(vm, kindEvent, 0), func(_, _ []byte) error { return errFound })
		if errors.Is(err, errFound) {
			waiting = append(waiting, vm)
		} else if err != nil {
			return nil, err
		}
	}
	return waiting, nil
}
