package mailbox

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway/gatewaytest"
)

// A list has what a plain slice has after the same changes, and every list that was handed out stays as it was.
func TestListIsLikeASlice(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) // not a secret
	s, want := packedState(700)
	l := &s.list
	type handed struct {
		list List
		want []Entry
	}
	var shared []handed
	seen := map[uint64]map[int][]Entry{} // pages by ID and length
	next := uint32(1400)
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
			if len(p.Entries()) == 0 || len(p.Entries()) > 2*pageEntries {
				t.Fatalf("a page of %d", len(p.Entries()))
			}
			if seen[p.ID] == nil {
				seen[p.ID] = map[int][]Entry{}
			}
			if before, ok := seen[p.ID][len(p.Entries())]; ok && !slices.Equal(before, p.Entries()) {
				t.Fatalf("two pages have the ID %d", p.ID)
			}
			seen[p.ID][len(p.Entries())] = p.Entries()
		}
	}
}

// packedState is a state of n messages as an index leads to, with every second UID.
func packedState(n int) (*state, []Entry) {
	var want []Entry
	var index []byte
	for i := range n {
		e := Entry{UID: uint32(2 * (i + 1)), QueueID: NewQueueID(time.Unix(int64(i), 0)), Bytes: int64(i), at: place{segment: uint32(i/300 + 1), length: 100, file: i == 600}}
		if i%100 == 0 {
			e.Flags |= parked | Seen
		}
		e.Received = time.UnixMilli(int64(i)).UTC()
		want = append(want, e)
		index = appendEntry(index, e)
	}
	s := newState()
	s.take(index)
	return s, want
}

// A state of an index counts what one does to which each message was added, and writes the same index, whether its
// pages were looked at or not.
func TestTakeCounts(t *testing.T) {
	s, want := packedState(700)
	added := newState()
	for _, e := range want {
		added.list.add(e)
		added.count(e, 1)
	}
	check := func() {
		t.Helper()
		if s.bytes != added.bytes || s.live != added.live || s.parked != added.parked || !maps.Equal(s.used, added.used) {
			t.Errorf("%d bytes, %d live, %d parked, %v; want %d, %d, %d, %v", s.bytes, s.live, s.parked, s.used, added.bytes, added.live, added.parked, added.used)
		}
		var index, other []byte
		var uids []uint32
		for _, p := range s.list.Pages() {
			index, uids = p.encode(index), p.AppendUIDs(uids)
		}
		for _, p := range added.list.Pages() {
			other = p.encode(other)
		}
		if !bytes.Equal(index, other) || len(uids) != s.list.Len() || uids[len(uids)-1] != want[len(want)-1].UID {
			t.Errorf("%d bytes of index, want %d; %d UIDs", len(index), len(other), len(uids))
		}
	}
	check()
	if e, ok := s.list.Find(1202); !ok || !e.at.file || s.list.Pages()[0].packed.entries != nil || !s.list.Pages()[2].packed.big || s.list.Pages()[1].packed.big {
		t.Errorf("%+v", e)
	}
	check()
	for _, to := range []*state{s, added} {
		gatewaytest.Must(t, to.apply(&frame{kind: kindFlags, flags: Flagged, meta: encodeUIDs([]uint32{600, 1400})}, place{}))
		gatewaytest.Must(t, to.apply(&frame{kind: kindExpunge, meta: encodeUIDs([]uint32{2, 1202})}, place{}))
	}
	want = want[:0]
	for _, e := range added.list.All() {
		want = append(want, e)
	}
	check()
	if s.parked != 5 { // 2 and 1202 were
		t.Errorf("%d are parked", s.parked)
	}
}
