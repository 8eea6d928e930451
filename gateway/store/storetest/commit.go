package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"lodge/gateway"
)

func commitCases() []Case {
	return []Case{
		{"values and revisions", values},
		{"a list is sorted and of one prefix", sorted},
		{"all or none", allOrNone},
		{"conditions", conditions},
		{"limits", limits},
		{"bad keys", badKeys},
		{"a caller that has left", cancelled},
	}
}

func values(t *testing.T, s Subject) {
	missing(t, s.One, "a")
	first := put(t, s.One, "a", "1", "empty", "", "binary", "\x00\xff\n")
	holds(t, s.Two, "a", "1", first)
	holds(t, s.Two, "empty", "", first)
	holds(t, s.Two, "binary", "\x00\xff\n", first)
	again := put(t, s.Two, "a", "1")
	if again <= first {
		t.Errorf("the same value again: revision %d after %d", again, first)
	}
	holds(t, s.One, "a", "1", again)
	holds(t, s.One, "empty", "", first)
	gone := remove(t, s.One, "a")
	missing(t, s.Two, "a")
	if rev := remove(t, s.One, "a"); rev != gone {
		t.Errorf("deleting a missing key: revision %d after %d", rev, gone)
	}
	if back := put(t, s.One, "a", "2"); back <= gone || gone <= again {
		t.Errorf("deleted at %d after %d, made again at %d", gone, again, back)
	}
}

func sorted(t *testing.T, s Subject) {
	listed(t, s.One, "")
	put(t, s.One, "a/2", "", "a/10", "", "a", "", "a0", "", "a/ü", "", "b%/1", "", "b_/1", "", "bx/1", "", "\U0010ffff", "")
	listed(t, s.Two, "a/", "a/10", "a/2", "a/ü")
	listed(t, s.Two, "a/1", "a/10")
	listed(t, s.Two, "a", "a", "a/10", "a/2", "a/ü", "a0")
	listed(t, s.Two, "b%", "b%/1")
	listed(t, s.Two, "b_", "b_/1")
	listed(t, s.Two, "c")
	rev := listed(t, s.Two, "", "a", "a/10", "a/2", "a/ü", "a0", "b%/1", "b_/1", "bx/1", "\U0010ffff")
	entries, again := list(t, s.One, "a/2")
	if len(entries) != 1 || entries[0].Rev != rev || again != rev {
		t.Errorf("listed as of %d and %d, with %v", rev, again, entries)
	}
}

func allOrNone(t *testing.T, s Subject) {
	rev := put(t, s.One, "old", "1")
	refused(t, s.Two, gateway.KindConflict, []gateway.Cond{{Key: "old", Rev: rev}, {Key: "none", Rev: rev}},
		gateway.Op{Key: "old", Delete: true}, gateway.Op{Key: "new", Value: []byte("2")})
	holds(t, s.One, "old", "1", rev)
	missing(t, s.One, "new")
	next := commit(t, s.Two, []gateway.Cond{{Key: "old", Rev: rev}, {Key: "none"}},
		gateway.Op{Key: "old", Delete: true}, gateway.Op{Key: "new", Value: []byte("2")})
	missing(t, s.One, "old")
	holds(t, s.One, "new", "2", next)
}

func conditions(t *testing.T, s Subject) {
	rev := put(t, s.One, "a", "1", "other", "1")
	put(t, s.One, "other", "2")
	for name, tt := range map[string]struct {
		still gateway.Cond
		holds bool
	}{
		"unchanged":          {gateway.Cond{Key: "a", Rev: rev}, true},
		"missing":            {gateway.Cond{Key: "none"}, true},
		"not missing":        {gateway.Cond{Key: "a"}, false},
		"changed":            {gateway.Cond{Key: "other", Rev: rev}, false},
		"a later revision":   {gateway.Cond{Key: "a", Rev: rev + 1}, false},
		"an earlier one":     {gateway.Cond{Key: "a", Rev: rev - 1}, false},
		"never there":        {gateway.Cond{Key: "none", Rev: rev}, false},
		"a negative one":     {gateway.Cond{Key: "a", Rev: -1}, false},
		"none, negative one": {gateway.Cond{Key: "none", Rev: -1}, false},
	} {
		if tt.holds {
			commit(t, s.Two, []gateway.Cond{tt.still})
			continue
		}
		if _, err := s.Two.Commit(t.Context(), []gateway.Cond{tt.still}, nil); gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("%s: %v, want kind %s", name, err, gateway.KindConflict)
		}
	}
	remove(t, s.One, "a")
	back := put(t, s.One, "a", "1")
	refused(t, s.Two, gateway.KindConflict, []gateway.Cond{{Key: "a", Rev: rev}})
	if still := commit(t, s.Two, []gateway.Cond{{Key: "a", Rev: back}}); still != back {
		t.Errorf("a commit without operations: revision %d, want %d", still, back)
	}
}

func limits(t *testing.T, s Subject) {
	ops := func(n, bytes int) (do []gateway.Op) {
		for i := range n {
			do = append(do, gateway.Op{Key: fmt.Sprintf("limit/%04d", i), Value: make([]byte, bytes)})
		}
		return do
	}
	conds := func(n int) (still []gateway.Cond) {
		for i := range n {
			still = append(still, gateway.Cond{Key: fmt.Sprintf("none/%04d", i)})
		}
		return still
	}
	const keyBytes = len("limit/0000")
	commit(t, s.One, conds(gateway.MaxCommitOps), ops(gateway.MaxCommitOps, 10)...)
	commit(t, s.One, nil, ops(1, gateway.MaxCommitBytes-keyBytes)...)
	holds(t, s.Two, "limit/0000", string(make([]byte, gateway.MaxCommitBytes-keyBytes)), 0)
	rev := listed(t, s.One, "none")
	for name, tt := range map[string]struct {
		still []gateway.Cond
		do    []gateway.Op
	}{
		"operations": {nil, ops(gateway.MaxCommitOps+1, 1)},
		"conditions": {conds(gateway.MaxCommitOps + 1), ops(1, 1)},
		"one value":  {nil, ops(1, gateway.MaxCommitBytes-keyBytes+1)},
		"in sum":     {nil, ops(2, gateway.MaxCommitBytes/2)},
	} {
		if _, err := s.One.Commit(t.Context(), tt.still, tt.do); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("beyond the limit of %s: %v", name, err)
		}
	}
	if now := listed(t, s.One, "none"); now != rev {
		t.Errorf("a refused commit changed something: revision %d after %d", now, rev)
	}
}

func badKeys(t *testing.T, s Subject) {
	longest := strings.Repeat("k", gateway.MaxKeyBytes)
	put(t, s.One, longest, "1")
	holds(t, s.Two, longest, "1", 0)
	for _, key := range []string{"", longest + "k", "nul\x00", "\xff", "half \xc3"} {
		refused(t, s.One, gateway.KindInvalid, nil, gateway.Op{Key: key})
		refused(t, s.One, gateway.KindInvalid, []gateway.Cond{{Key: key}})
	}
	refused(t, s.One, gateway.KindInvalid, nil, gateway.Op{Key: "twice"}, gateway.Op{Key: "twice", Delete: true})
	refused(t, s.One, gateway.KindInvalid, []gateway.Cond{{Key: "twice"}, {Key: "twice"}})
	missing(t, s.One, "twice")
}

func cancelled(t *testing.T, s Subject) {
	rev := put(t, s.One, "a", "1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, get := s.One.Get(ctx, "a")
	_, _, list := s.One.List(ctx, "a")
	_, commit := s.One.Commit(ctx, nil, []gateway.Op{{Key: "b"}})
	var watch error
	for _, watch = range s.One.Watch(ctx, "a", rev) {
	}
	for name, err := range map[string]error{"get": get, "list": list, "commit": commit, "watch": watch} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	holds(t, s.One, "a", "1", rev)
}
