package store

import (
	"encoding/binary"
	"testing"
	"time"
)

// A time comes back as it was, of any year: an object can be locked for longer than nanoseconds in 64
// bits can count.
func TestTimesInRecords(t *testing.T) {
	for _, want := range []time.Time{
		{},
		time.Unix(0, 0).UTC(), time.Date(1677, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(2026, 3, 1, 12, 0, 0, 999_999_999, time.UTC),
		time.Date(2263, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		e := newEncoder()
		e.time(want)
		d := newDecoder(e.b)
		if got := d.time(); got != want || d.end("a time") != nil {
			t.Errorf("%v comes back as %v", want, got)
		}
	}
}

// Records of the format before are read as they were.
func TestOldTimesInRecords(t *testing.T) {
	for n, want := range map[int64]time.Time{0: {}, -1: time.Unix(0, -1).UTC(), 1_700_000_000_000_000_001: time.Unix(1_700_000_000, 1).UTC()} {
		d := newDecoder(binary.AppendVarint([]byte{oldRecordFormat}, n))
		if got := d.time(); got != want || d.end("a time") != nil {
			t.Errorf("%d is %v instead of %v", n, got, want)
		}
	}
}
