package mailbox

import (
	"bytes"
	"testing"
	"time"
)

var testMarker = marker{1, 2, 3, 4, 5, 6, 7, 8}

// Whatever frame is encoded comes back the same, and with any one bit of it flipped it is damaged.
func FuzzFrame(f *testing.F) {
	f.Add(byte(kindAdd), byte(3), uint32(7), []byte("meta"), []byte("body"), uint16(3))
	f.Add(byte(kindExpunge), byte(0), uint32(0), []byte{1, 0, 0, 0}, []byte{}, uint16(0))
	w := &window{} // its buffer of 256 KiB is most of the work
	read := func(buf []byte) (frame, bool, error) {
		*w = window{r: bytes.NewReader(buf), buf: w.buf[:0]}
		return readFrame(w, testMarker, 0, int64(len(buf)))
	}
	f.Fuzz(func(t *testing.T, k, flags byte, uid uint32, meta, body []byte, bit uint16) {
		if len(body) > maxInlineBytes {
			t.Skip()
		}
		want := frame{
			kind: kind(k), flags: Flags(flags), uid: uid, value: uid + 1, meta: meta,
			received: time.UnixMilli(1_700_000_000_123).UTC(), bytes: int64(len(body)), sum: checksum(body),
		}
		switch want.kind {
		case kindAdd:
			want.body = body
			fallthrough
		case kindAddFile:
			want.flags, want.value = want.flags|wordFlags(uid+1), 0
		case kindFlags:
			want.flags, want.clear, want.value, want.sum = want.flags|wordFlags(uid+1), Seen|wordFlags(^uid), 0, 0
		}
		buf := want.encode(nil, testMarker)
		if int64(len(buf)) != want.length() {
			t.Fatalf("%d bytes, want %d", len(buf), want.length())
		}
		want.body = nil
		got, sound, err := read(buf)
		if err != nil || !sound || !equal(got, want) {
			t.Fatalf("got %+v, %v, %v; want %+v", got, sound, err, want)
		}
		at := int(bit) % (8 * len(buf))
		buf[at/8] ^= 1 << (at % 8)
		if got, sound, err := read(buf); err == nil && sound {
			t.Fatalf("bit %d flipped and not noticed: %+v", at, got)
		}
	})
}

// tiles checks that walk reports each byte once, and applies what it finds.
type tiles struct {
	t     *testing.T
	at    int64
	state *state
}

func (v *tiles) frame(at int64, f frame, _ bool) error {
	if at != v.at {
		v.t.Fatalf("frame at %d, want %d", at, v.at)
	}
	v.at += f.length()
	_ = v.state.apply(&f, placeOf(&f, 1, at)) // damage to the caller
	return nil
}

func (v *tiles) damage(from, to int64) error {
	if from != v.at || to <= from {
		v.t.Fatalf("damage from %d to %d, want %d", from, to, v.at)
	}
	v.at = to
	return nil
}

// equal is written out: cmp is slow, and takes random branches, which a fuzzer counts as new coverage.
func equal(a, b frame) bool {
	meta := bytes.Equal(a.meta, b.meta) && bytes.Equal(a.body, b.body)
	return meta && a.kind == b.kind && a.flags == b.flags && a.clear == b.clear && a.uid == b.uid && a.value == b.value &&
		a.received.Equal(b.received) && a.bytes == b.bytes && a.sum == b.sum
}

// Any bytes as a segment are read to their end, by one who even has the marker, and what is kept
// of them is in order.
func FuzzSegment(f *testing.F) {
	add := &frame{
		kind: kindAdd, uid: 7, bytes: 2, body: []byte("hi"), sum: checksum([]byte("hi")),
		meta: envelope{id: NewQueueID(time.Now()), head: "h"}.encode(),
	}
	good := add.encode(nil, testMarker)
	good = (&frame{kind: kindFlags, flags: Seen, meta: encodeUIDs([]uint32{7, 9})}).encode(good, testMarker)
	f.Add(good)
	f.Add(append(bytes.Repeat([]byte{0}, 100), good...))
	f.Add(append(good[:60:60], good...))
	f.Add(testMarker[:])
	f.Fuzz(func(t *testing.T, segment []byte) {
		v := &tiles{t: t, state: newState()}
		if err := walk(bytes.NewReader(segment), testMarker, 0, int64(len(segment)), v); err != nil {
			t.Fatal(err)
		}
		if v.at != int64(len(segment)) {
			t.Fatalf("%d of %d bytes seen", v.at, len(segment))
		}
		entries := entries(v.state.list.List)
		for i := range entries {
			if i > 0 && entries[i-1].UID >= entries[i].UID || entries[i].UID >= v.state.NextUID {
				t.Fatalf("UIDs out of order: %+v", entries)
			}
		}
	})
}

// A message whose body has the form of frames changes nothing when damage forces a search in it: the
// marker is not in it.
func TestBodyLikeFrames(t *testing.T) {
	forged := (&frame{kind: kindExpunge, meta: encodeUIDs([]uint32{1})}).encode(nil, testMarker)
	real := marker{8, 7, 6, 5, 4, 3, 2, 1}
	first := &frame{kind: kindAdd, uid: 1, meta: envelope{id: NewQueueID(time.Now())}.encode()}
	second := &frame{kind: kindAdd, uid: 2, bytes: int64(len(forged)), body: forged, meta: envelope{id: NewQueueID(time.Now())}.encode()}
	buf := second.encode(first.encode(nil, real), real)
	buf[first.length()+20] ^= 1
	v := &tiles{t: t, state: newState()}
	if err := walk(bytes.NewReader(buf), real, 0, int64(len(buf)), v); err != nil {
		t.Fatal(err)
	}
	if v.state.list.Len() != 1 || entries(v.state.list.List)[0].UID != 1 {
		t.Errorf("messages: %+v", v.state.list)
	}
}
