// Package storetest holds implementations of gateway.Shared against its contract.
//
// A store's own test opens a fresh Subject for each of Cases and runs it, in a bubble of
// testing/synctest where the store has no other process. The cases take no longer than some lives
// of a lease (3 s each).
//
// It never looks behind the interface; what survives a crash is for the store's own tests.
package storetest

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"lodge/gateway"
)

// Subject is an empty store under test.
type Subject struct {
	One, Two gateway.Shared // two clients of the store, as two hosts have; they may be the same value
	// Compact makes the store drop the changes up to a revision.
	Compact func(ctx context.Context, upTo gateway.Revision) error
}

// Case is one test of the suite.
type Case struct {
	Name string
	Run  func(t *testing.T, s Subject)
}

// Cases returns the suite.
func Cases() []Case {
	return slices.Concat(commitCases(), raceCases(), watchCases(), leaseCases())
}

// patience bounds the wait for what must happen.
const patience = 30 * time.Second

// put commits values without a condition: key, value, key, value …
func put(t *testing.T, s gateway.Shared, pairs ...string) gateway.Revision {
	t.Helper()
	var do []gateway.Op
	for pair := range slices.Chunk(pairs, 2) {
		do = append(do, gateway.Op{Key: pair[0], Value: []byte(pair[1])})
	}
	return commit(t, s, nil, do...)
}

func remove(t *testing.T, s gateway.Shared, key string) gateway.Revision {
	t.Helper()
	return commit(t, s, nil, gateway.Op{Key: key, Delete: true})
}

func commit(t *testing.T, s gateway.Shared, still []gateway.Cond, do ...gateway.Op) gateway.Revision {
	t.Helper()
	rev, err := s.Commit(t.Context(), still, do)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return rev
}

// refused checks that a Commit fails with a kind.
func refused(t *testing.T, s gateway.Shared, want gateway.Kind, still []gateway.Cond, do ...gateway.Op) {
	t.Helper()
	if rev, err := s.Commit(t.Context(), still, do); err == nil || gateway.KindOf(err) != want {
		t.Errorf("commit: revision %d, %v; want kind %s", rev, err, want)
	}
}

// holds checks that a key has a value, as of a revision if one is given.
func holds(t *testing.T, s gateway.Shared, key, want string, rev gateway.Revision) {
	t.Helper()
	e, err := s.Get(t.Context(), key)
	if err != nil || e.Key != key || string(e.Value) != want || rev != 0 && e.Rev != rev {
		t.Errorf("get %q: %q = %q at %d, %v; want %q at %d", key, e.Key, e.Value, e.Rev, err, want, rev)
	}
}

func missing(t *testing.T, s gateway.Shared, key string) {
	t.Helper()
	if e, err := s.Get(t.Context(), key); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("get %q: %q, %v; want kind %s", key, e.Value, err, gateway.KindNotFound)
	}
}

func list(t *testing.T, s gateway.Shared, prefix string) ([]gateway.Entry, gateway.Revision) {
	t.Helper()
	entries, rev, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	return entries, rev
}

// listed checks the keys below a prefix, in order.
func listed(t *testing.T, s gateway.Shared, prefix string, want ...string) gateway.Revision {
	t.Helper()
	entries, rev := list(t, s, prefix)
	var keys []string
	for _, e := range entries {
		keys = append(keys, e.Key)
	}
	if !slices.Equal(keys, want) {
		t.Errorf("list %q: %q, want %q", prefix, keys, want)
	}
	return rev
}

// follow watches a prefix for n events. It always returns n; those that did not come are zero.
func follow(t *testing.T, s gateway.Shared, prefix string, after gateway.Revision, n int) []gateway.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []gateway.Event
	for event, err := range s.Watch(ctx, prefix, after) {
		if err != nil {
			t.Errorf("watch %q after %d: %v; %d events came: %v", prefix, after, err, len(all), all)
			return append(all, make([]gateway.Event, n-len(all))...)
		}
		if all = append(all, event); len(all) == n {
			break
		}
	}
	return all
}

func same(a, b gateway.Event) bool {
	return a.Key == b.Key && a.Rev == b.Rev && a.Deleted == b.Deleted && bytes.Equal(a.Value, b.Value)
}
