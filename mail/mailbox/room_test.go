package mailbox

import (
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// obeying opens a store in which the VMs have these settings.
func obeying(tb testing.TB, settings map[gateway.ID]gateway.MailSettings) *Store {
	tb.Helper()
	s := open(tb, tb.TempDir())
	s.Obey(func(id gateway.ID) gateway.MailSettings { return settings[id] })
	return s
}

// A mailbox never has more than its quota, whatever comes at once, and takes mail again when there is room.
func TestQuota(t *testing.T) {
	vm, quota := gateway.NewID(), int64(10_000)
	s := obeying(t, map[gateway.ID]gateway.MailSettings{vm: {QuotaBytes: quota}})
	var accepted atomic.Int64
	var group errgroup.Group
	for range 50 {
		group.Go(func() error {
			_, err := put(s, strings.Repeat("x", 900), vm)
			switch {
			case err == nil:
				accepted.Add(1)
			case !OverQuota(err) || gateway.KindOf(err) != gateway.KindNoSpace:
				return err
			}
			return nil
		})
	}
	gatewaytest.Must(t, group.Wait())
	b := box(t, s, vm)
	now := b.Snapshot()
	if n := now.Entries.Len(); n == 0 || int64(n) != accepted.Load() || now.bytes > quota || b.folders.claimed != 0 {
		t.Fatalf("%d messages of %d accepted, %d bytes, %d claimed", n, accepted.Load(), now.bytes, b.folders.claimed)
	}
	for { // claims of those at once may have kept some room free
		if _, err := put(s, strings.Repeat("x", 900), vm); err != nil {
			break
		}
	}
	room := quota - b.Snapshot().bytes
	if err := s.Fits(vm, room); err != nil {
		t.Errorf("%d bytes of %d: %v", room, quota, err)
	}
	if err := s.Fits(vm, room+1); !OverQuota(err) {
		t.Errorf("%d bytes are left, one more: %v", room, err)
	}
	gatewaytest.Must(t, b.Expunge([]uint32{entries(now.Entries)[0].UID}))
	mustPut(t, s, strings.Repeat("x", 900), vm)
	if n := int64(b.Snapshot().Entries.Len()); b.Snapshot().bytes > quota || n < accepted.Load() {
		t.Errorf("%d messages, %d bytes", n, b.Snapshot().bytes)
	}
}

// A message for several VMs of which one is full is with none of them, in memory or in a file.
func TestQuotaIsForAllOrNone(t *testing.T) {
	roomy, full := gateway.NewID(), gateway.NewID()
	s := obeying(t, map[gateway.ID]gateway.MailSettings{full: {QuotaBytes: 100}, roomy: {QuotaBytes: 1 << 30}})
	for i := range 20 { // map order decides who comes first
		if _, err := put(s, strings.Repeat("x", 200+i%2*maxInlineBytes), roomy, full); !OverQuota(err) {
			t.Fatal(err)
		}
	}
	for _, id := range []gateway.ID{roomy, full} {
		b := box(t, s, id)
		if now := b.Snapshot(); now.Entries.Len() != 0 || now.NextUID != 1 || b.folders.claimed != 0 {
			t.Errorf("%d messages, next UID %d, %d claimed", now.Entries.Len(), now.NextUID, b.folders.claimed)
		}
		leftNothing(t, b.big(""))
	}
	if err := s.Fits(full, 0); err != nil {
		t.Errorf("an empty mailbox: %v", err)
	}
}

// The quota counts what a mailbox has, also after a start from the index, and from the log alone.
func TestQuotaAfterStart(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	for _, size := range []int{100, 5000, 2 << 20} {
		mustPut(t, s, strings.Repeat("x", size), vm)
	}
	gatewaytest.Must(t, box(t, s, vm).Expunge([]uint32{2}))
	want := box(t, s, vm).Snapshot().bytes
	var sum int64
	for _, e := range box(t, s, vm).Snapshot().Entries.All() {
		sum += e.Bytes
	}
	if want != sum || want < 2<<20 {
		t.Fatalf("%d bytes, and the messages have %d", want, sum)
	}
	s.Close()
	for _, index := range []bool{true, false} {
		if !index {
			removeIndex(t, dir, vm)
		}
		s := open(t, dir)
		if got := box(t, s, vm).Snapshot().bytes; got != want {
			t.Errorf("index %v: %d bytes, want %d", index, got, want)
		}
		s.Close()
	}
}
