package mailbox

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Whatever record is encoded comes back the same, on one line, and with any one bit of it flipped
// it does not come back at all.
func FuzzRecord(f *testing.F) {
	f.Add("id", "from@x", "to@y", "sub\nject", "Head: x\r\n", int64(5), uint32(1), uint16(3))
	f.Add("", "\xff", "\x00", "\u2028", "", int64(-1), uint32(0), uint16(0))
	f.Fuzz(func(t *testing.T, id, from, rcpt, subject, head string, size int64, uid uint32, bit uint16) {
		r := record{
			Op: opAdd, UID: uid, QueueID: id, From: from, Rcpt: rcpt, Subject: subject, Head: head, Bytes: size,
			Received: time.UnixMilli(1_700_000_000_000).UTC(),
		}
		line, err := r.encode(nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("not one line: %q", line)
		}
		back, err := decode(line)
		if err != nil {
			t.Fatal(err)
		}
		again, err := back.encode(nil) // JSON replaces invalid UTF-8 once
		if err != nil {
			t.Fatal(err)
		}
		back2, err := decode(again)
		if diff := cmp.Diff(back, back2); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		at := int(bit) % ((len(line) - 1) * 8)
		line[at/8] ^= 1 << (at % 8)
		if flipped, err := decode(line); err == nil && !cmp.Equal(flipped, back) {
			t.Fatalf("bit %d flipped and not noticed", at)
		}
	})
}

// Any bytes as an index are read to their end without a panic, and what is kept of them is in
// order.
func FuzzIndex(f *testing.F) {
	good, err := record{Op: opAdd, UID: 7, QueueID: "q", Head: "h"}.encode(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(bytes.Repeat([]byte{0}, 100), good...))
	f.Add([]byte("00000000 00000000 \n"))
	f.Fuzz(func(t *testing.T, index []byte) {
		b := &Box{byID: map[string]uint32{}}
		lines := 0
		if err := eachLine(bytes.NewReader(index), func(line []byte, whole bool) {
			lines += len(line)
			if r, err := decode(line); err == nil && whole {
				b.apply(r, 0, len(line))
			}
		}); err != nil {
			t.Fatal(err)
		}
		if lines != len(index) {
			t.Fatalf("%d of %d bytes seen", lines, len(index))
		}
		for i, e := range b.entries {
			if i > 0 && b.entries[i-1].UID >= e.UID {
				t.Fatal("UIDs out of order")
			}
		}
	})
}
