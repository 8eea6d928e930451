package mailbox

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func newMark() string { return gateway.NewID().String() }

// mark makes a mark and ends its hold.
func (s *Store) mark(tb testing.TB, vm gateway.ID, name string) {
	tb.Helper()
	release, err := s.Mark(vm, name)
	gatewaytest.Must(tb, err)
	release()
}

// wait returns the UIDs of what is not in the guest, and fails if one waits in two places.
func wait(tb testing.TB, b *Box) []uint32 {
	tb.Helper()
	s := b.Snapshot()
	all := []uint32{}
	for _, e := range s.Entries.All() {
		if !s.Delivered(e) {
			all = append(all, e.UID)
		}
	}
	var found []uint32
	for _, e := range b.Parked(1000) {
		found = append(found, e.UID)
	}
	for e, ok := b.PendingAfter(0); ok; e, ok = b.PendingAfter(e.UID) {
		found = append(found, e.UID)
	}
	slices.Sort(found)
	if diff := cmp.Diff(all, append([]uint32{}, found...)); diff != "" {
		tb.Errorf("waiting (-by cursor and flags +found by the delivery):\n%s", diff)
	}
	return all
}

// marked is the model of a mailbox and its marks.
type marked struct {
	t     *testing.T
	r     *rand.Rand
	dir   string
	vm    gateway.ID
	s     *Store
	b     *Box
	seen  map[uint32]bool            // of each message there is
	guest map[uint32]bool            // what it has
	marks map[string]map[uint32]bool // what it had
}

// Random changes, marks and rewinds, with restarts, crashes and lost indexes between them: what waits is what it is
// in a model, and nothing else of the mailbox changes.
func TestMarksAgainstModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := &marked{
				t: t, r: rand.New(rand.NewPCG(seed, 11)), dir: t.TempDir(), vm: gateway.NewID(),
				seen: map[uint32]bool{}, guest: map[uint32]bool{}, marks: map[string]map[uint32]bool{},
			}
			m.open()
			rewinds := 0
			for range 400 {
				switch n := m.r.IntN(24); n {
				case 0, 1:
					m.marks[m.newMark()] = maps.Clone(m.guest)
				case 2, 3:
					rewinds += m.rewind()
				case 4:
					m.drop()
				case 5:
					m.restart()
				default:
					m.change(n)
				}
				m.compare()
				if t.Failed() {
					return
				}
			}
			m.s.Close()
			if rewinds < 10 {
				t.Errorf("%d rewinds", rewinds)
			}
		})
	}
}

func (m *marked) open() {
	m.s = open(m.t, m.dir)
	m.b = box(m.t, m.s, m.vm)
	m.b.segmentBytes = 4 << 10
}

func (m *marked) newMark() string {
	name := newMark()
	m.s.mark(m.t, m.vm, name)
	return name
}

func (m *marked) change(n int) {
	uids := slices.Sorted(maps.Keys(m.seen))
	var some uint32 // a message, perhaps
	if len(uids) > 0 {
		some = uids[m.r.IntN(len(uids))]
	}
	first, pending := m.b.Pending()
	var err error
	switch {
	case n < 12:
		mustPut(m.t, m.s, strings.Repeat("x", m.r.IntN(1000)), m.vm)
		m.seen[m.b.Snapshot().NextUID-1] = false
	case n < 16 && pending:
		err = m.b.Delivered(first.UID)
		m.guest[first.UID] = true
	case n < 18 && pending:
		err = m.b.Park(first.UID)
	case n == 18 && m.b.Snapshot().parked > 0:
		some = m.b.Parked(1)[0].UID
		err = m.b.Unpark(some)
		m.guest[some] = true
	case n == 19 && m.guest[some]:
		err = m.b.Redeliver([]uint32{some})
		delete(m.guest, some)
	case n == 20 && some > 0:
		err = m.b.SetFlags([]uint32{some}, Seen, 0)
		m.seen[some] = true
	case n == 21 && some > 0:
		err = m.b.Expunge([]uint32{some})
		delete(m.seen, some)
	}
	gatewaytest.Must(m.t, err)
}

func (m *marked) rewind() int {
	for name, guest := range m.marks { // in random order
		for range 1 + m.r.IntN(2) { // after a crash it is repeated
			gatewaytest.Must(m.t, m.s.Rewind(m.vm, name))
		}
		m.guest = maps.Clone(guest)
		return 1
	}
	return 0
}

func (m *marked) drop() {
	for name := range m.marks {
		gatewaytest.Must(m.t, m.s.DropMark(m.vm, name))
		delete(m.marks, name)
		return
	}
}

// restart opens the mailbox again, after a stop or as a crash leaves it, perhaps without its index.
func (m *marked) restart() {
	if m.r.IntN(2) == 0 {
		crashed := m.t.TempDir()
		gatewaytest.Must(m.t, os.CopyFS(crashed, os.DirFS(m.dir)))
		m.s.Close()
		m.dir = crashed
	} else {
		m.s.Close()
	}
	if m.r.IntN(2) == 0 {
		_ = os.Remove(filepath.Join(m.dir, m.vm.String(), "log", indexName)) // after a crash there may be none
	}
	m.open()
}

func (m *marked) compare() {
	m.t.Helper()
	want := []uint32{}
	for uid := range m.seen {
		if !m.guest[uid] {
			want = append(want, uid)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, wait(m.t, m.b)); diff != "" {
		m.t.Errorf("waiting (-want +got):\n%s", diff)
	}
	seen := map[uint32]bool{}
	for _, e := range m.b.Snapshot().Entries.All() {
		seen[e.UID] = e.Flags&Seen != 0
	}
	if diff := cmp.Diff(m.seen, seen); diff != "" {
		m.t.Errorf("messages (-want +got):\n%s", diff)
	}
	marks, err := m.s.Marks(m.vm)
	gatewaytest.Must(m.t, err)
	slices.Sort(marks)
	if want := slices.Sorted(maps.Keys(m.marks)); !slices.Equal(want, marks) {
		m.t.Errorf("marks %v, want %v", marks, want)
	}
}

// Changes wait for the release, and are refused if it does not come; so does a message for two VMs of which one is held.
// A rewind does not wait.
func TestMarksHoldChangesBack(t *testing.T) {
	s, one, two := open(t, t.TempDir()), gateway.NewID(), gateway.NewID()
	b := box(t, s, one)
	mustPut(t, s, "first", one)
	name := newMark()
	release, err := s.Mark(one, name)
	gatewaytest.Must(t, err)
	accepted := make(chan error)
	go func() {
		_, err := put(s, "second", one, two)
		accepted <- err
	}()
	gatewaytest.WaitFor(t, "the message waits", func() bool { return b.gate.Waiting() == 1 })
	mustPut(t, s, "to another one", two)
	gatewaytest.Must(t, s.Rewind(one, name))
	if n, m := b.Snapshot().Entries.Len(), box(t, s, two).Snapshot().Entries.Len(); n != 1 || m != 1 {
		t.Errorf("%d and %d messages during the hold", n, m)
	}
	release()
	gatewaytest.Must(t, <-accepted)

	b.gate.MaxWait = time.Millisecond
	release, err = s.Mark(one, newMark())
	gatewaytest.Must(t, err)
	shown := box(t, s, two).Snapshot().Mod
	_, err = put(s, "third", one, two)
	if !Held(err) || gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("error %v", err)
	}
	if now := box(t, s, two).Snapshot().Mod; now != shown {
		t.Errorf("the other mailbox had the message for a moment: change %d after %d", now, shown)
	}
	release()
	if n, m := b.Snapshot().Entries.Len(), box(t, s, two).Snapshot().Entries.Len(); n != 2 || m != 2 {
		t.Errorf("%d and %d messages", n, m)
	}
	b.gate.MaxWait, b.gate.MaxHold = time.Minute, time.Millisecond
	_, err = s.Mark(one, newMark())
	gatewaytest.Must(t, err)
	mustPut(t, s, "fourth", one) // the hold has ended by itself
}

// What the delivery has done is recorded after the longest hold: it would be done again otherwise.
func TestDeliveriesWaitOn(t *testing.T) {
	s, vm := open(t, t.TempDir()), gateway.NewID()
	b := box(t, s, vm)
	for range 3 {
		mustPut(t, s, "x", vm)
	}
	gatewaytest.Must(t, b.Park(1))
	b.gate.MaxWait = time.Nanosecond
	release, err := s.Mark(vm, newMark())
	gatewaytest.Must(t, err)
	ended := make(chan error)
	go func() { ended <- errors.Join(b.Unpark(1), b.Delivered(2), b.Park(3)) }()
	gatewaytest.WaitFor(t, "a record waits", func() bool { return b.gate.Waiting() == 1 })
	if _, err := put(s, "late", vm); !Held(err) { // after the limit of all others
		t.Errorf("error %v", err)
	}
	if waiting := wait(t, b); !slices.Equal(waiting, []uint32{1, 2, 3}) {
		t.Errorf("waiting: %v", waiting)
	}
	release()
	gatewaytest.Must(t, <-ended)
	if waiting := wait(t, b); !slices.Equal(waiting, []uint32{3}) {
		t.Errorf("waiting: %v", waiting)
	}
}

// A crash may leave only the first frames of a rewind. What was parked at the mark and is in the guest now waits then,
// too, once anything has changed.
func TestHalfARewind(t *testing.T) {
	for n := range 3 {
		s, vm, name := open(t, t.TempDir()), gateway.NewID(), newMark()
		b := box(t, s, vm)
		for range 3 {
			mustPut(t, s, "x", vm)
		}
		gatewaytest.Must(t, b.Park(1))
		s.mark(t, vm, name)
		gatewaytest.Must(t, errors.Join(b.Unpark(1), b.Delivered(2), b.Park(3)))
		m, err := s.readMark(vm, name)
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, b.submit(newTicket(ignore, b.rewind(m)[:n+1]...)))
		if first := b.Parked(1); len(first) != 1 || first[0].UID != 1 {
			t.Errorf("after %d frames the first message does not wait", n+1)
		}
		gatewaytest.Must(t, s.Rewind(vm, name))
		if waiting := wait(t, b); !slices.Equal(waiting, []uint32{1, 2, 3}) {
			t.Errorf("waiting: %v", waiting)
		}
	}
}

// Bad ids, unknown and damaged marks, and a removed mailbox: each has its error, and nothing changes.
func TestBadMarks(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	kind := func(err error, want gateway.Kind) {
		t.Helper()
		if err == nil || gateway.KindOf(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	name, path := newMark(), filepath.Join(dir, vm.String(), marksName)
	if ids, err := s.Marks(vm); err != nil || len(ids) > 0 {
		t.Errorf("marks %v, %v", ids, err)
	}
	gatewaytest.Must(t, s.DropMark(vm, name))
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("looking at marks has made the mailbox: %v", err)
	}
	mustPut(t, s, "one", vm)
	gatewaytest.Must(t, box(t, s, vm).Delivered(1))
	s.mark(t, vm, name)
	_, err := s.Mark(vm, name)
	kind(err, gateway.KindConflict)
	for _, bad := range []string{"", ".", "../log/index", strings.ToUpper(name), name + "\n"} {
		_, err := s.Mark(vm, bad)
		kind(err, gateway.KindInvalid)
		kind(s.Rewind(vm, bad), gateway.KindInvalid)
		kind(s.DropMark(vm, bad), gateway.KindInvalid)
	}
	kind(s.Rewind(vm, newMark()), gateway.KindNotFound)
	good, err := os.ReadFile(filepath.Join(path, name))
	gatewaytest.Must(t, err)
	for _, damaged := range []string{"", string(good[:len(good)-2]), "0" + string(good), strings.Replace(string(good), "1", "9", 1)} {
		gatewaytest.Must(t, os.WriteFile(filepath.Join(path, name), []byte(damaged), 0o600))
		kind(s.Rewind(vm, name), gateway.KindNotFound)
		kind(s.HasMark(vm, name), gateway.KindNotFound)
		if ids, err := s.Marks(vm); err != nil || len(ids) > 0 {
			t.Errorf("marks %v, %v", ids, err)
		}
	}
	gatewaytest.Must(t, os.WriteFile(filepath.Join(path, name), good, 0o600))
	gatewaytest.Must(t, os.WriteFile(filepath.Join(path, ".new-1"), nil, 0o600)) // of a crash
	if ids, err := s.Marks(vm); err != nil || !slices.Equal(ids, []string{name}) {
		t.Errorf("marks %v, %v", ids, err)
	}
	gatewaytest.Must(t, s.DropMark(vm, name))
	if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if waiting := wait(t, box(t, s, vm)); len(waiting) > 0 {
		t.Errorf("waiting: %v", waiting)
	}
	gatewaytest.Must(t, s.Remove(vm))
	_, err = s.Mark(vm, name)
	kind(err, gateway.KindNotFound)
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("marks are left: %v", err)
	}
}

// A mark stays true when the index is damaged, and the log is read anew.
func TestMarksOutliveTheIndex(t *testing.T) {
	dir, vm, name := t.TempDir(), gateway.NewID(), newMark()
	s := open(t, dir)
	for range 3 {
		mustPut(t, s, "x", vm)
	}
	gatewaytest.Must(t, box(t, s, vm).Delivered(1))
	s.mark(t, vm, name)
	gatewaytest.Must(t, box(t, s, vm).Delivered(3))
	s.Close()
	gatewaytest.Must(t, os.WriteFile(filepath.Join(dir, vm.String(), "log", indexName), []byte("damaged"), 0o600))
	s = open(t, dir)
	gatewaytest.Must(t, s.Rewind(vm, name))
	s.Close()
	s = open(t, dir)
	if waiting := wait(t, box(t, s, vm)); !slices.Equal(waiting, []uint32{2, 3}) {
		t.Errorf("waiting: %v", waiting)
	}
}
