package mailbox

import (
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// large returns a mailbox of n messages.
func large(tb testing.TB, s *Store, vm gateway.ID, n int) *Box {
	tb.Helper()
	for left := n; left > 0; left -= 5000 {
		mustPut(tb, s, "x", slices.Repeat([]gateway.ID{vm}, min(left, 5000))...)
	}
	return box(tb, s, vm)
}

// BenchmarkFlags is one change of a flag in a mailbox of 100,000 messages: durable, and in memory alone.
func BenchmarkFlags(b *testing.B) {
	m := large(b, open(b, b.TempDir()), gateway.NewID(), 100_000)
	b.Run("durable", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			gatewaytest.Must(b, m.SetFlags([]uint32{uint32(i%100_000) + 1}, Seen, 0))
		}
	})
	b.Run("memory", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			gatewaytest.Must(b, m.state.apply(&frame{kind: kindFlags, flags: Seen, meta: encodeUIDs([]uint32{uint32(i%100_000) + 1})}, place{}))
			m.show()
		}
	})
}

// BenchmarkOpen opens a mailbox of a million messages whose index is whole.
func BenchmarkOpen(b *testing.B) {
	dir, vm := b.TempDir(), gateway.NewID()
	s := open(b, dir)
	large(b, s, vm, 1_000_000)
	s.Close()
	logger := slog.New(slog.DiscardHandler)
	b.ReportAllocs()
	for b.Loop() {
		m, err := openBox(filepath.Join(dir, vm.String()), logger, nil)
		gatewaytest.Must(b, err)
		if n := m.Snapshot().Entries.Len(); n != 1_000_000 {
			b.Fatalf("%d messages", n)
		}
		m.close(errClosed())
	}
}
