package mailbox

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// An index of several pieces leads to the same messages, and damage anywhere in it is noticed. Whether a mailbox has
// something to do is found without holding its index in memory.
func TestIndexInPieces(t *testing.T) {
	const n = 3*pieceBytes/indexEntryBytes + 100
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	b := large(t, s, vm, n)
	gatewaytest.Must(t, b.SetFlags([]uint32{1, n / 2, n}, Seen, 0))
	gatewaytest.Must(t, b.Delivered(n))
	want := b.Snapshot()
	s.Close()
	path := filepath.Join(dir, vm.String(), "log", indexName)
	got, _, err := readIndex(path)
	gatewaytest.Must(t, err)
	var all []Entry
	for _, e := range got.list.All() {
		all = append(all, e)
	}
	for i, e := range want.Entries.All() {
		e.Mod, e.Received = 0, all[i].Received
		if all[i] != e {
			t.Fatalf("message %d: %+v, want %+v", i, all[i], e)
		}
	}
	if len(all) != n || got.bytes != want.bytes || got.used[1] != n {
		t.Errorf("%d messages of %d bytes, %d of them in the segment", len(all), got.bytes, got.used[1])
	}
	s = open(t, dir)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	quiet := s.quiet(vm)
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; !quiet || allocated > 2*pieceBytes {
		t.Errorf("quiet %v, %d bytes allocated", quiet, allocated)
	}
	text, err := os.ReadFile(path)
	gatewaytest.Must(t, err)
	for _, at := range []int{0, len(indexMagic), 30, 60, pieceBytes / 2, 2*pieceBytes + 10, len(text) - 1} {
		bad := slices.Clone(text)
		bad[at] ^= 1
		gatewaytest.Must(t, os.WriteFile(path, bad, 0o600))
		if _, _, err := readIndex(path); !errors.Is(err, errIndex) || s.quiet(vm) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	for _, size := range []int{0, 10, 30, pieceBytes, len(text) - 1} {
		gatewaytest.Must(t, os.WriteFile(path, text[:size], 0o600))
		if _, _, err := readIndex(path); !errors.Is(err, errIndex) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	gatewaytest.Must(t, os.WriteFile(path, append(text, 'x'), 0o600))
	if _, _, err := readIndex(path); !errors.Is(err, errIndex) {
		t.Errorf("a byte more: %v", err)
	}
}
