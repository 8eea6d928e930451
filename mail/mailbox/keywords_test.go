package mailbox

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// Keywords stay with their messages over a restart, with an index and without, and when the log is tidied.
func TestKeywords(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	b := box(t, s, vm)
	b.segmentBytes = 64 << 10
	mustPut(t, s, "kept", vm)
	flags, err := b.Keywords([]string{"$Label1", "Work", "$label1"})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, b.SetFlags([]uint32{1}, flags|Seen, 0))
	gatewaytest.Must(t, b.SetFlags([]uint32{1}, 0, b.Snapshot().Keyword("$LABEL1")))
	for range 60 { // until the first segment is gone
		mustPut(t, s, strings.Repeat("x", 5000), vm)
		gatewaytest.Must(t, b.Expunge([]uint32{b.Snapshot().NextUID - 1}))
	}
	if first := b.Snapshot().segments[0].number; first == 1 {
		t.Fatal("the log was not tidied")
	}
	s.Close()
	for _, index := range []bool{true, false} {
		if !index {
			gatewaytest.Must(t, os.Remove(filepath.Join(b.log, indexName)))
		}
		s := open(t, dir)
		now := box(t, s, vm).Snapshot()
		e, _ := now.Entries.Find(1)
		if !slices.Equal(now.Keywords, []string{"$Label1", "Work"}) || e.Flags&settable != Seen|now.Keyword("work") {
			t.Errorf("index %v: %q, %b", index, now.Keywords, e.Flags)
		}
		s.Close()
	}
}

func TestKeywordLimits(t *testing.T) {
	s := open(t, t.TempDir())
	b := box(t, s, gateway.NewID())
	for _, name := range []string{"", "a b", "é", "a\n", strings.Repeat("a", MaxKeywordBytes+1)} {
		if _, err := b.Keywords([]string{"good", name}); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%q: %v", name, err)
		}
	}
	var all []string
	for i := range MaxKeywords {
		all = append(all, fmt.Sprint("k", i))
	}
	if _, err := b.Keywords(append(all, "more")); gateway.KindOf(err) != gateway.KindConflict || len(b.Snapshot().Keywords) != 0 {
		t.Errorf("%v, %d made", err, len(b.Snapshot().Keywords))
	}
	flags, err := b.Keywords(all)
	if err != nil || flags != AllKeywords {
		t.Errorf("%b, %v", flags, err)
	}
	if _, err := b.Keywords([]string{"more"}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("one more: %v", err)
	}
	if again, err := b.Keywords([]string{"K31"}); err != nil || again != b.Snapshot().Keyword("k31") {
		t.Errorf("%b, %v", again, err)
	}
}
