package mailbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A log stays in proportion to what lives in it, and keeps that: every tenth message stays, also the
// first, until all were rewritten.
func TestTidy(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	b := box(t, s, vm)
	b.segmentBytes = 64 << 10
	kept := map[string]string{}
	for i := range 600 {
		body := fmt.Sprint(i, strings.Repeat("x", 5000))
		id := mustPut(t, s, body, vm)[0]
		uid := uint32(i) + 1
		if i%10 == 0 {
			kept[id] = body
			gatewaytest.Must(t, b.SetFlags([]uint32{uid}, Flagged, 0))
		} else {
			gatewaytest.Must(t, b.Expunge([]uint32{uid}))
		}
	}
	gatewaytest.Must(t, b.Delivered(600))
	before := b.Snapshot()
	s.Close()
	segments := glob(filepath.Join(b.log, "*.seg"))
	if n := len(segments); n > 14 { // 60 messages of 5,000 bytes are 5 segments
		t.Errorf("%d segments", n)
	}
	for _, index := range []bool{true, false} {
		if !index {
			gatewaytest.Must(t, os.Remove(filepath.Join(b.log, indexName)))
		}
		s := open(t, dir)
		b := box(t, s, vm)
		for id, body := range kept {
			if got := read(t, b, id); !strings.HasSuffix(got, "\r\n"+body) {
				t.Errorf("message %s is %.80q", id, got)
			}
		}
		after := b.Snapshot()
		if after.Entries.Len() != len(kept) || after.NextUID != before.NextUID || after.Validity != before.Validity || after.cursor != 600 {
			t.Errorf("%d messages, next UID %d, cursor %d", after.Entries.Len(), after.NextUID, after.cursor)
		}
		for i, e := range after.Entries.All() {
			if e.UID != entries(before.Entries)[i].UID || e.Flags != Flagged {
				t.Errorf("entry %d: %+v, was %+v", i, e, entries(before.Entries)[i])
			}
		}
		s.Close()
	}
}

// The disk that a message has is free once it is expunged.
func TestExpungeFreesDisk(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	b := box(t, s, vm)
	used := func() (bytes int64) {
		for _, path := range append(glob(filepath.Join(b.log, "*.seg")), glob(b.big("*"))...) {
			var st syscall.Stat_t
			gatewaytest.Must(t, syscall.Stat(path, &st))
			bytes += st.Blocks * 512
		}
		return bytes
	}
	keep := mustPut(t, s, "keep", vm)[0]
	var uids []uint32
	for i := range 8 {
		mustPut(t, s, strings.Repeat("x", 500_000*(1+i%3)), vm) // each third one is in big
		uids = append(uids, uint32(i)+2)
	}
	last := mustPut(t, s, "last", vm)[0]
	full := used()
	gatewaytest.Must(t, b.Expunge(uids))
	if left := used(); left > full/3 { // some room is reserved behind the tail
		t.Errorf("%d of %d bytes are still used", left, full)
	}
	s.Close()
	gatewaytest.Must(t, os.Remove(filepath.Join(b.log, indexName)))
	report := &gatewaytest.Log{}
	s, err := Open(dir, report.Logger())
	gatewaytest.Must(t, err)
	defer s.Close()
	b = box(t, s, vm)
	if !strings.HasSuffix(read(t, b, keep), "keep") || !strings.HasSuffix(read(t, b, last), "last") || b.Snapshot().Entries.Len() != 2 {
		t.Errorf("messages: %+v", entries(b.Snapshot().Entries))
	}
	if report.Count("level=ERROR") > 0 {
		t.Errorf("holes were taken for damage:\n%s", report)
	}
}

// Park records the place of delivery and the message that is missing in the guest together.
func TestPark(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	ids := []string{mustPut(t, s, "one", vm)[0], mustPut(t, s, "two", vm)[0], mustPut(t, s, "three", vm)[0]}
	b := box(t, s, vm)
	gatewaytest.Must(t, b.Delivered(1))
	gatewaytest.Must(t, b.Park(2))
	s.Close()
	b = box(t, open(t, dir), vm)
	if e, waiting := b.Pending(); !waiting || e.QueueID != ids[2] {
		t.Errorf("pending: %+v, %v", e, waiting)
	}
	list, err := b.List(0)
	gatewaytest.Must(t, err)
	var delivered []bool
	for _, m := range list {
		delivered = append(delivered, m.Delivered)
	}
	if diff := cmp.Diff([]bool{false, false, true}, delivered); diff != "" {
		t.Error(diff)
	}
}

// Changes of flags alone do not make the log grow without end.
func TestFlagsAreTidied(t *testing.T) {
	vm := gateway.NewID()
	s := open(t, t.TempDir())
	b := box(t, s, vm)
	b.segmentBytes = 64 << 10
	var uids []uint32
	for i := range 100 {
		mustPut(t, s, "x", vm)
		uids = append(uids, uint32(i)+1)
	}
	for i := range 2000 {
		set, unset := Flagged, Flags(0)
		if i%2 == 1 {
			set, unset = unset, set
		}
		gatewaytest.Must(t, b.SetFlags(uids, set, unset))
	}
	s.Close()
	var size int64
	for _, path := range glob(filepath.Join(b.log, "*.seg")) {
		info, err := os.Stat(path)
		gatewaytest.Must(t, err)
		size += info.Size()
	}
	if size > 400<<10 { // the changes are 900 KB
		t.Errorf("the log has %d bytes", size)
	}
	if n := b.Snapshot().Entries.Len(); n != 100 {
		t.Errorf("%d messages", n)
	}
}
