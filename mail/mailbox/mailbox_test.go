package mailbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func open(tb testing.TB, dir string) *Store {
	tb.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

func box(tb testing.TB, s *Store, id gateway.ID) *Box {
	tb.Helper()
	b, err := s.Box(id)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// put accepts one message for each VM and returns the queue ids.
func put(s *Store, body string, vms ...gateway.ID) ([]string, error) {
	st, err := s.Stage()
	if err != nil {
		return nil, err
	}
	defer st.Remove()
	if _, err := io.WriteString(st, body); err != nil {
		return nil, err
	}
	var ids []string
	var letters []Letter
	for _, vm := range vms {
		id := NewQueueID(time.Now())
		ids = append(ids, id)
		letters = append(letters, Letter{
			VM: vm, QueueID: id, From: "a@b", Rcpt: "c@d", Subject: "hi " + id, Head: "X-Queue: " + id + "\r\n",
			Received: time.Now(),
		})
	}
	return ids, s.Commit(st, letters)
}

func mustPut(tb testing.TB, s *Store, body string, vms ...gateway.ID) []string {
	tb.Helper()
	ids, err := put(s, body, vms...)
	if err != nil {
		tb.Fatal(err)
	}
	return ids
}

func read(tb testing.TB, b *Box, queueID string) string {
	tb.Helper()
	e, err := b.Find(queueID)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := b.Open(e.UID)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func TestMailboxSurvivesReopen(t *testing.T) {
	dir, vm, other := t.TempDir(), gateway.NewID(), gateway.NewID()
	s := open(t, dir)
	ids := mustPut(t, s, "one\r\n", vm)
	both := mustPut(t, s, "two\r\n", vm, other)
	third := mustPut(t, s, "three\r\n", vm)
	b := box(t, s, vm)
	gatewaytest.Must(t, b.SetFlags([]uint32{1, 2}, Seen|Flagged, 0))
	gatewaytest.Must(t, b.SetFlags([]uint32{2}, 0, Flagged))
	gatewaytest.Must(t, b.Delivered(2))
	gatewaytest.Must(t, b.Expunge([]uint32{3}))
	before := b.Snapshot()
	s.Close()

	b = box(t, open(t, dir), vm)
	after := b.Snapshot()
	if after.Validity != before.Validity || after.Validity == 0 || after.NextUID != 4 {
		t.Errorf("validity %d, was %d; next UID %d, want 4", after.Validity, before.Validity, after.NextUID)
	}
	var flags []Flags
	for _, e := range after.Entries {
		flags = append(flags, e.Flags)
	}
	if diff := cmp.Diff([]Flags{Seen | Flagged, Seen}, flags); diff != "" {
		t.Error(diff)
	}
	if got, want := read(t, b, ids[0]), "X-Queue: "+ids[0]+"\r\none\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := read(t, b, both[0]), "X-Queue: "+both[0]+"\r\ntwo\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := b.Find(third[0]); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("expunged message: %v", err)
	}
	if _, waiting := b.Pending(); waiting {
		t.Error("something is pending behind the cursor")
	}
	list, err := b.List(1)
	gatewaytest.Must(t, err)
	if len(list) != 1 || list[0].QueueID != both[0] || !list[0].Delivered || list[0].Subject != "hi "+both[0] {
		t.Errorf("list: %+v", list)
	}
}

// A UID is never given twice, even when the last message was expunged and the index rewritten
// since.
func TestUIDsAreNeverReused(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	mustPut(t, s, "x", vm)
	gatewaytest.Must(t, box(t, s, vm).Expunge([]uint32{1}))
	b := box(t, s, vm)
	b.mu.Lock()
	err := b.compact()
	b.mu.Unlock()
	gatewaytest.Must(t, err)
	s.Close()
	s = open(t, dir)
	id := mustPut(t, s, "y", vm)[0]
	if e, err := box(t, s, vm).Find(id); err != nil || e.UID != 2 {
		t.Errorf("UID %d, %v; want 2", e.UID, err)
	}
}

func TestCompactionKeepsAll(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	ids := mustPut(t, s, "kept", vm)
	b := box(t, s, vm)
	for i := range 1100 {
		gatewaytest.Must(t, b.SetFlags([]uint32{1}, Flags(i)&AllFlags, AllFlags))
	}
	if b.lines > 200 {
		t.Errorf("%d lines: not compacted", b.lines)
	}
	if got := read(t, b, ids[0]); !strings.HasSuffix(got, "kept") {
		t.Errorf("got %q", got)
	}
	want := b.Snapshot().Entries[0].Flags
	s.Close()
	if got := box(t, open(t, dir), vm).Snapshot().Entries[0].Flags; got != want {
		t.Errorf("flags %b, want %b", got, want)
	}
}

func TestRemoveIsForGood(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	mustPut(t, s, "x", vm)
	gatewaytest.Must(t, s.Remove(vm))
	gatewaytest.Must(t, s.Remove(vm))
	if _, err := put(s, "y", vm); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("mail for a removed mailbox: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, vm.String())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory: %v", err)
	}
	leftNothing(t, filepath.Join(dir, "stage"))
}

// A change after the mailbox was closed is an error that the sender retries; one after its removal
// is final.
func TestClosedIsNotRemoved(t *testing.T) {
	for want, end := range map[gateway.Kind]func(*Store, gateway.ID) error{
		gateway.KindUnavailable: func(s *Store, _ gateway.ID) error { s.Close(); return nil },
		gateway.KindNotFound:    (*Store).Remove,
	} {
		s, vm := open(t, t.TempDir()), gateway.NewID()
		b := box(t, s, vm)
		gatewaytest.Must(t, end(s, vm))
		if err := b.SetFlags([]uint32{1}, Seen, 0); gateway.KindOf(err) != want {
			t.Errorf("got %v (%s), want %s", err, gateway.KindOf(err), want)
		}
		if _, err := put(s, "x", vm); gateway.KindOf(err) != want {
			t.Errorf("mail: got %v (%s), want %s", err, gateway.KindOf(err), want)
		}
	}
}

// One VM of a transaction being gone keeps the message from all.
func TestAllOrNone(t *testing.T) {
	s, good, gone := open(t, t.TempDir()), gateway.NewID(), gateway.NewID()
	gatewaytest.Must(t, s.Remove(gone))
	for range 20 { // map order decides who comes first
		if _, err := put(s, "x", good, gone); err == nil {
			t.Fatal("accepted")
		}
	}
	b := box(t, s, good)
	if n := len(b.Snapshot().Entries); n != 0 {
		t.Errorf("%d messages", n)
	}
	leftNothing(t, filepath.Join(b.dir, "msg"))
	leftNothing(t, filepath.Join(s.dir, "stage"))
}

func TestManySendersAtOnce(t *testing.T) {
	dir := t.TempDir()
	vms := []gateway.ID{gateway.NewID(), gateway.NewID(), gateway.NewID()}
	s := open(t, dir)
	var group errgroup.Group
	for i := range 300 {
		group.Go(func() error {
			_, err := put(s, fmt.Sprint(i), vms[i%3])
			return err
		})
	}
	gatewaytest.Must(t, group.Wait())
	s.Close()
	s = open(t, dir)
	for _, vm := range vms {
		for i, e := range box(t, s, vm).Snapshot().Entries {
			if e.UID != uint32(i)+1 {
				t.Fatalf("entry %d has UID %d", i, e.UID)
			}
		}
		if n := len(box(t, s, vm).Snapshot().Entries); n != 100 {
			t.Errorf("%d messages, want 100", n)
		}
	}
}

// Whatever a power cut leaves of the last record, the messages before it are there and new ones
// come in. The index is cut at each byte of its last record, and then each byte of that record is
// spoiled.
func TestTornTail(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	first := mustPut(t, s, "first", vm)[0]
	b := box(t, s, vm)
	keep := b.size
	second := mustPut(t, s, "second", vm)[0]
	s.Close()
	index := filepath.Join(dir, vm.String(), "index")
	whole, err := os.ReadFile(index)
	gatewaytest.Must(t, err)
	body, err := os.ReadFile(b.body(second))
	gatewaytest.Must(t, err)
	check := func(name string, damaged []byte) {
		gatewaytest.Must(t, os.WriteFile(index, damaged, 0o600))
		gatewaytest.Must(t, os.WriteFile(b.body(second), body, 0o600))
		s := open(t, dir)
		defer s.Close()
		b := box(t, s, vm)
		if got := read(t, b, first); !strings.HasSuffix(got, "first") {
			t.Fatalf("%s: first message is %q", name, got)
		}
		if _, err := b.Find(second); err == nil {
			t.Fatalf("%s: a torn message is there", name)
		}
		if _, err := os.Stat(b.body(second)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: its body is left behind: %v", name, err)
		}
		third := mustPut(t, s, "third", vm)[0]
		if got := read(t, b, third); !strings.HasSuffix(got, "third") {
			t.Fatalf("%s: next message is %q", name, got)
		}
	}
	for cut := keep; cut < int64(len(whole)); cut++ {
		check(fmt.Sprint("cut at ", cut), whole[:cut])
	}
	for at := keep; at < int64(len(whole))-1; at += 7 {
		spoiled := bytes.Clone(whole)
		spoiled[at] ^= 0x15
		check(fmt.Sprint("spoiled at ", at), spoiled)
	}
}

// Damage in the middle costs the damaged record only, and its body stays for whoever repairs it.
func TestDamageInside(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	mustPut(t, s, "first", vm)
	b := box(t, s, vm)
	at := b.size
	lost := mustPut(t, s, "lost", vm)[0]
	last := mustPut(t, s, "last", vm)[0]
	s.Close()
	index := filepath.Join(dir, vm.String(), "index")
	whole, err := os.ReadFile(index)
	gatewaytest.Must(t, err)
	whole[at+40] ^= 1
	gatewaytest.Must(t, os.WriteFile(index, whole, 0o600))
	b = box(t, open(t, dir), vm)
	if got := read(t, b, last); !strings.HasSuffix(got, "last") {
		t.Errorf("last message is %q", got)
	}
	if n := len(b.Snapshot().Entries); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
	if _, err := os.Stat(b.body(lost)); err != nil {
		t.Errorf("body of the damaged record: %v", err)
	}
}

func TestMissingBody(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	id := mustPut(t, s, "x", vm)[0]
	gatewaytest.Must(t, os.Remove(box(t, s, vm).body(id)))
	s.Close()
	if n := len(box(t, open(t, dir), vm).Snapshot().Entries); n != 0 {
		t.Errorf("%d messages, want 0", n)
	}
}

func TestQueueIDs(t *testing.T) {
	seen := map[string]bool{}
	at := time.UnixMilli(1_700_000_000_000)
	last := NewQueueID(at)
	for range 10_000 {
		id := NewQueueID(at)
		if len(id) != 26 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuv") != "" || seen[id] {
			t.Fatalf("queue id %q", id)
		}
		seen[id] = true
	}
	if later := NewQueueID(at.Add(time.Second)); later <= last {
		t.Errorf("%s is not behind %s", later, last)
	}
}

func leftNothing(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	gatewaytest.Must(t, err)
	if len(left) != 0 {
		t.Errorf("left behind in %s: %v", dir, left)
	}
}
