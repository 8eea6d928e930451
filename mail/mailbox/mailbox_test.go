package mailbox

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
	for _, e := range after.Entries.All() {
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

// A UID is never given twice, even when the last message was expunged and the index is
// gone.
func TestUIDsAreNeverReused(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	mustPut(t, s, "x", vm)
	gatewaytest.Must(t, box(t, s, vm).Expunge([]uint32{1}))
	s.Close()
	gatewaytest.Must(t, os.Remove(filepath.Join(dir, vm.String(), "log", indexName)))
	s = open(t, dir)
	id := mustPut(t, s, "y", vm)[0]
	if e, err := box(t, s, vm).Find(id); err != nil || e.UID != 2 {
		t.Errorf("UID %d, %v; want 2", e.UID, err)
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
	for i := range 20 { // map order decides who comes first
		if _, err := put(s, strings.Repeat("x", 1+i%2*maxInlineBytes), good, gone); err == nil {
			t.Fatal("accepted")
		}
	}
	b := box(t, s, good)
	if n := b.Snapshot().Entries.Len(); n != 0 {
		t.Errorf("%d messages", n)
	}
	leftNothing(t, b.big(""))
	leftNothing(t, filepath.Join(s.dir, "stage"))
}

// One body for many recipients in a VM is on disk once when it would make a batch too long.
func TestManyRecipients(t *testing.T) {
	s, vm := open(t, t.TempDir()), gateway.NewID()
	body := strings.Repeat("x", 900_000)
	ids := mustPut(t, s, body, slices.Repeat([]gateway.ID{vm}, 20)...)
	b := box(t, s, vm)
	for _, id := range ids {
		if got := read(t, b, id); got != "X-Queue: "+id+"\r\n"+body {
			t.Errorf("%s has %d bytes", id, len(got))
		}
	}
	if b.end > 100_000 {
		t.Errorf("the log has %d bytes", b.end)
	}
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
		for i, e := range box(t, s, vm).Snapshot().Entries.All() {
			if e.UID != uint32(i)+1 {
				t.Fatalf("entry %d has UID %d", i, e.UID)
			}
		}
		if n := box(t, s, vm).Snapshot().Entries.Len(); n != 100 {
			t.Errorf("%d messages, want 100", n)
		}
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

func entries(l List) (all []Entry) {
	for _, e := range l.All() {
		all = append(all, e)
	}
	return all
}

func leftNothing(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	gatewaytest.Must(t, err)
	if len(left) != 0 {
		t.Errorf("left behind in %s: %v", dir, left)
	}
}
