package mailbox

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A list has what a plain slice has after the same changes, and every list that was handed out stays as it was.
func TestListIsLikeASlice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // not a secret
	l, want := &editor{}, []Entry(nil)
	type handed struct {
		list List
		want []Entry
	}
	var shared []handed
	seen := map[uint64]map[int][]Entry{} // pages by ID and length
	next := uint32(1)
	pick := func(n int) (uids []uint32) {
		for range n {
			uids = append(uids, random.Uint32N(next+2))
		}
		return uids
	}
	for step := range 150 {
		switch random.IntN(5) {
		case 0, 1: // new ones, with gaps
			for range random.IntN(400) {
				next += 1 + random.Uint32N(3)
				l.add(Entry{UID: next})
				want = append(want, Entry{UID: next})
			}
		case 2:
			for _, uid := range pick(random.IntN(5)) {
				l.edit(uid, func(e *Entry) { e.Mod++ })
				if i := slices.IndexFunc(want, func(e Entry) bool { return e.UID == uid }); i >= 0 {
					want[i].Mod++
				}
			}
		case 3: // in a row, and here and there
			uids := pick(random.IntN(20))
			for from, i := random.Uint32N(next), uint32(0); i < 700; i++ {
				uids = append(uids, from+i)
			}
			named := map[uint32]bool{}
			for _, uid := range uids {
				named[uid] = true
			}
			n := 0
			l.remove(uids, func(Entry) { n++ })
			before := len(want)
			want = slices.DeleteFunc(want, func(e Entry) bool { return named[e.UID] })
			if n != before-len(want) {
				t.Fatalf("step %d: %d removed, want %d", step, n, before-len(want))
			}
		case 4: // between others
			for _, uid := range pick(random.IntN(600)) {
				if i, there := slices.BinarySearchFunc(want, uid, func(e Entry, uid uint32) int { return int(e.UID) - int(uid) }); !there {
					l.add(Entry{UID: uid})
					want = slices.Insert(want, i, Entry{UID: uid})
					next = max(next, uid)
				}
			}
		}
		if random.IntN(3) == 0 {
			shared = append(shared, handed{l.shared(), slices.Clone(want)})
		}
		if l.Len() != len(want) || len(want) > 0 && !slices.Equal(entries(l.List), want) {
			t.Fatalf("step %d: %d messages, want %d", step, l.Len(), len(want))
		}
	}
	for i, h := range shared {
		if !slices.Equal(entries(h.list), h.want) || h.list.Len() != len(h.want) {
			t.Fatalf("list %d has changed", i)
		}
		back := slices.Collect(h.list.Backward())
		slices.Reverse(back)
		if diff := cmp.Diff(len(h.want), len(back)); diff != "" || !slices.Equal(back, h.want) {
			t.Fatalf("list %d backward: %s", i, diff)
		}
		for _, p := range h.list.Pages() {
			if len(p.Entries) == 0 || len(p.Entries) > 2*pageEntries {
				t.Fatalf("a page of %d", len(p.Entries))
			}
			if seen[p.ID] == nil {
				seen[p.ID] = map[int][]Entry{}
			}
			if before, ok := seen[p.ID][len(p.Entries)]; ok && !slices.Equal(before, p.Entries) {
				t.Fatalf("two pages have the ID %d", p.ID)
			}
			seen[p.ID][len(p.Entries)] = p.Entries
		}
	}
}
