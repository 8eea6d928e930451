package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"lodge/gateway"
)

func watchCases() []Case {
	return []Case{
		{"a watch yields each change once", eachOnce},
		{"a watch catches up", catchesUp},
		{"a watch waits for the first change", waits},
		{"many watches of one history", alike},
		{"a compacted revision", compacted},
	}
}

func eachOnce(t *testing.T, s Subject) {
	put(t, s.One, "a/before", "0")
	start := listed(t, s.One, "a/", "a/before")
	first := commit(t, s.One, nil, gateway.Op{Key: "a/2", Value: []byte("1")}, gateway.Op{Key: "b", Value: []byte("not watched")},
		gateway.Op{Key: "a/1", Value: []byte("1")})
	second := put(t, s.Two, "a/2", "2")
	third := remove(t, s.One, "a/1")
	remove(t, s.One, "a/1") // no change
	put(t, s.One, "a", "beside the prefix")
	last := put(t, s.Two, "a/3", "")
	got := follow(t, s.Two, "a/", start, 5)
	want := []gateway.Event{
		{Entry: gateway.Entry{Key: "a/1", Value: []byte("1"), Rev: first}},
		{Entry: gateway.Entry{Key: "a/2", Value: []byte("1"), Rev: first}},
		{Entry: gateway.Entry{Key: "a/2", Value: []byte("2"), Rev: second}},
		{Entry: gateway.Entry{Key: "a/1", Rev: third}, Deleted: true},
		{Entry: gateway.Entry{Key: "a/3", Rev: last}},
	}
	if same(got[0], want[1]) { // the order within a revision is the store's
		got[0], got[1] = got[1], got[0]
	}
	for i := range want {
		if !same(got[i], want[i]) {
			t.Errorf("event %d: %v, want %v", i, got[i], want[i])
		}
	}
	again := follow(t, s.One, "a/", second, 2)
	if !same(again[0], want[3]) || !same(again[1], want[4]) {
		t.Errorf("after %d: %v, want %v", second, again, want[3:])
	}
}

// A list, and a watch from its revision, miss nothing that is committed meanwhile.
func catchesUp(t *testing.T, s Subject) {
	const all = 60
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		for i := range all {
			op := gateway.Op{Key: fmt.Sprintf("a/%03d", i), Value: []byte("1")}
			if _, err := s.One.Commit(t.Context(), nil, []gateway.Op{op}); err != nil {
				t.Errorf("commit: %v", err)
			}
		}
	})
	entries, rev := list(t, s.Two, "a/")
	seen := map[string]int{}
	for _, e := range entries {
		if seen[e.Key]++; e.Rev > rev {
			t.Errorf("%s of revision %d in a list as of %d", e.Key, e.Rev, rev)
		}
	}
	if missing := all - len(entries); missing > 0 {
		for _, event := range follow(t, s.Two, "a/", rev, missing) {
			seen[event.Key]++
		}
	}
	for i := range all {
		if n := seen[fmt.Sprintf("a/%03d", i)]; n != 1 {
			t.Errorf("change %d was seen %d times", i, n)
		}
	}
}

func waits(t *testing.T, s Subject) {
	start := put(t, s.One, "a", "0")
	var watching sync.WaitGroup
	var got []gateway.Event
	watching.Go(func() { got = follow(t, s.Two, "a", start, 2) })
	put(t, s.One, "a", "1")
	end := put(t, s.One, "a", "2")
	watching.Wait()
	if string(got[0].Value) != "1" || string(got[1].Value) != "2" || got[1].Rev != end {
		t.Errorf("saw %v", got)
	}
}

// What several watches see, begun at any time, is the same history.
func alike(t *testing.T, s Subject) {
	const all = 30
	start := put(t, s.One, "a/start", "")
	var watching sync.WaitGroup
	seen := make([][]gateway.Event, contenders)
	for i := range seen {
		at := s.One
		if i%2 == 1 {
			at = s.Two
		}
		watching.Go(func() { seen[i] = follow(t, at, "a/", start, all) })
	}
	race(s, func(i int, at gateway.Shared) {
		for n := range all / contenders {
			op := gateway.Op{Key: fmt.Sprintf("a/%d", (i+n)%4), Value: fmt.Appendf(nil, "%d.%d", i, n)}
			if _, err := at.Commit(t.Context(), nil, []gateway.Op{op}); err != nil {
				t.Errorf("commit: %v", err)
			}
		}
	})
	watching.Wait()
	for i, events := range seen {
		for n := range events {
			if !same(events[n], seen[0][n]) {
				t.Errorf("watch %d: event %d is %v, and %v elsewhere", i, n, events[n], seen[0][n])
			}
			if n > 0 && events[n].Rev <= events[n-1].Rev {
				t.Errorf("watch %d: revision %d after %d", i, events[n].Rev, events[n-1].Rev)
			}
		}
	}
}

func compacted(t *testing.T, s Subject) {
	first := put(t, s.One, "a", "1")
	second := put(t, s.One, "a", "2")
	third := put(t, s.One, "a", "3")
	if err := s.Compact(t.Context(), second); err != nil {
		t.Fatalf("compact: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	events := 0
	for event, err := range s.Two.Watch(ctx, "a", first) {
		if events++; !errors.Is(err, gateway.ErrCompacted) {
			t.Fatalf("watch of a compacted revision: %v, %v", event, err)
		}
	}
	if events != 1 {
		t.Errorf("the watch ended with %d values, want one", events)
	}
	if got := follow(t, s.Two, "a", second, 1); string(got[0].Value) != "3" || got[0].Rev != third {
		t.Errorf("after the compacted revision: %v", got)
	}
	holds(t, s.One, "a", "3", third)
	rev := listed(t, s.Two, "", "a")
	last := put(t, s.One, "a", "4")
	if got := follow(t, s.Two, "a", rev, 1); got[0].Rev != last {
		t.Errorf("after a new list: %v", got)
	}
}
