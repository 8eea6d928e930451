package storetest

import (
	"testing"
	"time"

	"lodge/gateway"
)

// life is that of the leases here: long enough for any store, and for a busy machine.
const life = 3 * time.Second

func leaseCases() []Case {
	return []Case{
		{"a lease ends with its life", leaseEnds},
		{"a lease is kept alive", keptAlive},
		{"a lease is ended", leaseEnded},
		{"a key leaves its lease", leavesLease},
		{"an ended lease takes no keys", endedLease},
		{"a life has a least length", shortLife},
	}
}

func lease(t *testing.T, s gateway.Shared) gateway.Lease {
	t.Helper()
	l, err := s.Lease(t.Context(), life)
	if err != nil {
		t.Fatalf("lease: %v", err)
	}
	return l
}

// leased puts keys under a lease.
func leased(t *testing.T, s gateway.Shared, l gateway.Lease, keys ...string) gateway.Revision {
	t.Helper()
	var do []gateway.Op
	for _, key := range keys {
		do = append(do, gateway.Op{Key: key, Value: []byte("leased"), Lease: l.ID()})
	}
	return commit(t, s, nil, do...)
}

// deleted follows until some keys are deleted, and checks that nothing else happens.
func deleted(t *testing.T, s gateway.Shared, after gateway.Revision, keys ...string) {
	t.Helper()
	left := map[string]bool{}
	for _, key := range keys {
		left[key] = true
	}
	for _, event := range follow(t, s, "", after, len(keys)) {
		if !event.Deleted || !left[event.Key] || event.Rev <= after || len(event.Value) > 0 {
			t.Errorf("event %v, want the deletion of one of %v", event, left)
		}
		delete(left, event.Key)
	}
	for _, key := range keys {
		missing(t, s, key)
	}
}

func leaseEnds(t *testing.T, s Subject) {
	began := time.Now()
	l := lease(t, s.One)
	put(t, s.One, "kept", "1")
	rev := leased(t, s.One, l, "a", "b")
	holds(t, s.Two, "a", "leased", rev)
	deleted(t, s.Two, rev, "a", "b")
	if took := time.Since(began); took < life {
		t.Errorf("it ended after %s, want at least %s", took, life)
	}
	holds(t, s.Two, "kept", "1", 0)
	if err := l.KeepAlive(t.Context()); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("an ended lease was kept alive: %v", err)
	}
	if err := l.End(t.Context()); err != nil {
		t.Errorf("to end an ended lease: %v", err)
	}
}

func keptAlive(t *testing.T, s Subject) {
	l := lease(t, s.One)
	rev := leased(t, s.One, l, "a")
	for range 4 {
		time.Sleep(life / 2) // the wait is what is tested
		if err := l.KeepAlive(t.Context()); err != nil {
			t.Fatalf("keep alive: %v", err)
		}
		holds(t, s.Two, "a", "leased", rev)
	}
	deleted(t, s.Two, rev, "a")
}

func leaseEnded(t *testing.T, s Subject) {
	l, other := lease(t, s.One), lease(t, s.One)
	if l.ID() == other.ID() || l.ID() == 0 {
		t.Errorf("leases %d and %d", l.ID(), other.ID())
	}
	rev := leased(t, s.One, other, "other")
	rev = max(rev, leased(t, s.One, l, "a", "b"))
	for range 2 {
		if err := l.End(t.Context()); err != nil {
			t.Fatalf("end: %v", err)
		}
	}
	holds(t, s.Two, "other", "leased", 0)
	deleted(t, s.Two, rev, "a", "b")
	if err := l.KeepAlive(t.Context()); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("an ended lease was kept alive: %v", err)
	}
}

func leavesLease(t *testing.T, s Subject) {
	l, other := lease(t, s.One), lease(t, s.One)
	leased(t, s.One, l, "free", "moved", "deleted", "stays")
	put(t, s.Two, "free", "1")
	leased(t, s.Two, other, "moved")
	remove(t, s.Two, "deleted")
	rev := put(t, s.Two, "deleted", "made again")
	if err := l.End(t.Context()); err != nil {
		t.Fatalf("end: %v", err)
	}
	deleted(t, s.Two, rev, "stays")
	listed(t, s.One, "", "deleted", "free", "moved")
	deleted(t, s.Two, listed(t, s.One, "free", "free"), "moved")
}

func endedLease(t *testing.T, s Subject) {
	l := lease(t, s.One)
	if err := l.End(t.Context()); err != nil {
		t.Fatalf("end: %v", err)
	}
	refused(t, s.Two, gateway.KindNotFound, nil,
		gateway.Op{Key: "a", Value: []byte("1")}, gateway.Op{Key: "b", Lease: l.ID()})
	refused(t, s.Two, gateway.KindNotFound, nil, gateway.Op{Key: "b", Lease: 123_456_789})
	listed(t, s.One, "")
}

func shortLife(t *testing.T, s Subject) {
	for _, short := range []time.Duration{-time.Second, 0, time.Second - 1} {
		if _, err := s.One.Lease(t.Context(), short); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("a life of %s: %v", short, err)
		}
	}
}
