package storetest

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"lodge/gateway"
)

func raceCases() []Case {
	return []Case{
		{"one of many makes a key", oneMakes},
		{"one of many takes a key", oneTakes},
		{"no increment is lost", increments},
		{"two claims, crosswise", crosswise},
	}
}

// contenders is how many goroutines race, half of them at each client.
const contenders = 10

func race(s Subject, each func(i int, at gateway.Shared)) {
	var all sync.WaitGroup
	for i := range contenders {
		at := s.One
		if i%2 == 1 {
			at = s.Two
		}
		all.Go(func() { each(i, at) })
	}
	all.Wait()
}

// contend commits, and counts in won whether it did; KindConflict is the only error.
func contend(t *testing.T, at gateway.Shared, won *atomic.Int32, still []gateway.Cond, do ...gateway.Op) {
	_, err := at.Commit(t.Context(), still, do)
	switch {
	case err == nil:
		won.Add(1)
	case gateway.KindOf(err) != gateway.KindConflict:
		t.Errorf("commit: %v", err)
	}
}

func oneMakes(t *testing.T, s Subject) {
	var won atomic.Int32
	race(s, func(i int, at gateway.Shared) {
		contend(t, at, &won, []gateway.Cond{{Key: "a"}}, gateway.Op{Key: "a", Value: []byte(strconv.Itoa(i))})
	})
	if won.Load() != 1 {
		t.Errorf("%d made it", won.Load())
	}
}

func oneTakes(t *testing.T, s Subject) {
	rev := put(t, s.One, "a", "1")
	var won atomic.Int32
	race(s, func(_ int, at gateway.Shared) {
		contend(t, at, &won, []gateway.Cond{{Key: "a", Rev: rev}}, gateway.Op{Key: "a", Delete: true})
	})
	if won.Load() != 1 {
		t.Errorf("%d took it", won.Load())
	}
	missing(t, s.One, "a")
}

func increments(t *testing.T, s Subject) {
	const each = 5
	put(t, s.One, "n", "0")
	race(s, func(_ int, at gateway.Shared) {
		for range each {
			if err := increment(t, at); err != nil {
				t.Errorf("increment: %v", err)
			}
		}
	})
	holds(t, s.One, "n", strconv.Itoa(contenders*each), 0)
}

func increment(t *testing.T, at gateway.Shared) error {
	for {
		e, err := at.Get(t.Context(), "n")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(e.Value))
		if err != nil {
			return err
		}
		op := gateway.Op{Key: "n", Value: []byte(strconv.Itoa(n + 1))}
		_, err = at.Commit(t.Context(), []gateway.Cond{{Key: "n", Rev: e.Rev}}, []gateway.Op{op})
		if gateway.KindOf(err) != gateway.KindConflict || err == nil {
			return err
		}
	}
}

// Of claims for two keys in either order one wins both, and nobody gets half.
func crosswise(t *testing.T, s Subject) {
	var won atomic.Int32
	race(s, func(i int, at gateway.Shared) {
		keys := []string{"a", "b"}
		if i%3 == 0 {
			keys = []string{"b", "a"}
		}
		value := []byte(strconv.Itoa(i))
		contend(t, at, &won, []gateway.Cond{{Key: keys[0]}, {Key: keys[1]}},
			gateway.Op{Key: keys[0], Value: value}, gateway.Op{Key: keys[1], Value: value})
	})
	entries, _ := list(t, s.One, "")
	if won.Load() != 1 || len(entries) != 2 || string(entries[0].Value) != string(entries[1].Value) {
		t.Errorf("%d won, and left %v", won.Load(), entries)
	}
}
