package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/storage/store"
)

// failsOnce is a queue whose first list of VMs fails; it counts what is read of buckets and of events. The record of a
// bucket "torn" is damaged, and the commit of the event hidden has not ended.
type failsOnce struct {
	*store.Store

	lists, buckets, pages atomic.Int64
	hidden                atomic.Uint64
}

func (q *failsOnce) EventVMs() ([]gateway.ID, error) {
	if q.lists.Add(1) == 1 {
		return nil, errors.New("the disk fails")
	}
	return q.Store.EventVMs()
}

func (q *failsOnce) Bucket(vm gateway.ID, name string) (store.Bucket, error) {
	q.buckets.Add(1)
	if name == "torn" {
		return store.Bucket{}, fmt.Errorf("%w: as a test has it", store.ErrDamaged)
	}
	return q.Store.Bucket(vm, name)
}

func (q *failsOnce) Events(vm gateway.ID, after uint64, most int) (store.EventPage, error) {
	q.pages.Add(1)
	page, err := q.Store.Events(vm, after, most)
	page.Events = slices.DeleteFunc(page.Events, func(e store.Event) bool { return e.Number == q.hidden.Load() })
	return page, err
}

func newQueue(t *testing.T) (*failsOnce, gateway.VM, Config) {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Config{
		Log: slog.New(slog.DiscardHandler),
		Rule: func(b *store.Bucket, _, _ string) (store.Rule, bool) {
			return store.Rule{ID: "all", Target: b.Name}, true
		},
	})
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, s.Close()) })
	directory, err := gateway.OpenDirectory(t.Context(), new(gatewaytest.Records))
	gatewaytest.Must(t, err)
	m, err := directory.Create(t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Desired: gateway.Running})
	gatewaytest.Must(t, err)
	q := &failsOnce{Store: s}
	return q, m, Config{
		Queue: q, Directory: directory, Logger: slog.New(slog.DiscardHandler), Times: Times{Step: time.Second, RetryMin: time.Hour, RetryMax: time.Hour},
		Target: func(b *store.Bucket, _ string) (string, bool) { return b.Name, b.Name != "unasked" }, // no port: each attempt fails
	}
}

func put(t *testing.T, s *store.Store, vm gateway.ID, bucket string) {
	t.Helper()
	_, err := s.Put(t.Context(), store.Key{VM: vm, Bucket: bucket, Name: "k"}, store.Write{})
	gatewaytest.Must(t, err)
}

// Events that wait are delivered although the first list of them could not be read.
func TestQueueNotReadAtFirst(t *testing.T) {
	q, m, config := newQueue(t)
	put(t, q.Store, m.ID, "unasked")
	config.Times.RetryMin = time.Millisecond
	d := New(config)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	gatewaytest.WaitFor(t, "an empty queue", func() bool {
		page, err := q.Store.Events(m.ID, 0, 1)
		return err == nil && page.Last == 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := q.lists.Load(); n != 2 {
		t.Errorf("the list was read %d times, want 2", n)
	}
}

// A round reads the record of a bucket once; while its target is held, a round reads only what is new.
func TestRoundsAreCheap(t *testing.T) {
	q, m, config := newQueue(t)
	const events = 5 * pageEvents
	for range events {
		put(t, q.Store, m.ID, "bad")
	}
	w := newWorker(config, m.ID)
	round := func(buckets, pages int64) {
		t.Helper()
		q.buckets.Store(0)
		q.pages.Store(0)
		waiting, err := w.round(t.Context())
		if err != nil || !waiting || q.buckets.Load() > buckets || q.pages.Load() > pages {
			t.Errorf("waiting %v, %v, with %d buckets and %d pages read, want at most %d and %d", waiting, err, q.buckets.Load(), q.pages.Load(), buckets, pages)
		}
	}
	round(2, events/pageEvents+1) // again after the attempt
	put(t, q.Store, m.ID, "bad")
	round(1, 3)
	put(t, q.Store, m.ID, "other")
	round(5, events/pageEvents+5)
	if w.held["other"] == nil || w.held["bad"] == nil {
		t.Errorf("held %v", w.held)
	}
	put(t, q.Store, m.ID, "unasked")
	round(5, events/pageEvents+5)
	if page, err := q.Store.Events(m.ID, 0, 2*events); err != nil || len(page.Events) != events+2 || page.Dropped != 1 {
		t.Errorf("%d events wait, %d dropped, %v", len(page.Events), page.Dropped, err)
	}
}

// waits makes a round, after which events wait, and returns them.
func waits(t *testing.T, w *worker, q *failsOnce) store.EventPage {
	t.Helper()
	if waiting, err := w.round(t.Context()); err != nil || !waiting {
		t.Fatalf("waiting %v, %v", waiting, err)
	}
	page, err := q.Store.Events(w.vm, 0, 10*pageEvents)
	gatewaytest.Must(t, err)
	return page
}

// A commit may end long after those of later events: its target is tried although all others are held.
func TestLateCommit(t *testing.T) {
	q, m, config := newQueue(t)
	put(t, q.Store, m.ID, "late")
	page, err := q.Store.Events(m.ID, 0, 1)
	gatewaytest.Must(t, err)
	q.hidden.Store(page.Last)
	for range 2 * pageEvents {
		put(t, q.Store, m.ID, "bad")
	}
	w := newWorker(config, m.ID)
	waits(t, w, q)
	if w.held["bad"] == nil || w.held["late"] != nil {
		t.Fatalf("held %v", w.held)
	}
	q.hidden.Store(0)
	if waits(t, w, q); w.held["late"] == nil {
		t.Errorf("held %v", w.held)
	}
}

// A restore makes earlier events wait again: their targets are tried although all later ones are held.
func TestRestoredEvents(t *testing.T) {
	q, m, config := newQueue(t)
	put(t, q.Store, m.ID, "back")
	release, err := q.Snapshot(m.ID, "at")
	gatewaytest.Must(t, err)
	release()
	page, err := q.Store.Events(m.ID, 0, 1)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, q.EndEvents(page, page.Last))
	put(t, q.Store, m.ID, "bad")
	w := newWorker(config, m.ID)
	waits(t, w, q)
	gatewaytest.Must(t, q.Restore(m.ID, "at"))
	if page := waits(t, w, q); len(page.Events) != 1 || w.held["back"] == nil {
		t.Errorf("held %v, and %d events wait", w.held, len(page.Events))
	}
}

// A bucket that cannot be read loses its events, and holds up those of no other.
func TestDamagedBucket(t *testing.T) {
	q, m, config := newQueue(t)
	for _, bucket := range []string{"torn", "torn", "bad"} {
		put(t, q.Store, m.ID, bucket)
	}
	w := newWorker(config, m.ID)
	for dropped := int64(2); dropped <= 3; dropped++ {
		if page := waits(t, w, q); len(page.Events) != 1 || page.Dropped != dropped || w.held["bad"] == nil {
			t.Errorf("%d events wait, %d dropped, held %v", len(page.Events), page.Dropped, w.held)
		}
		put(t, q.Store, m.ID, "torn")
	}
}
