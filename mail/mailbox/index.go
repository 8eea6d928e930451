package mailbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"lodge/gateway/durable"
)

const (
	indexName    = "index"
	damagedIndex = "index.damaged"
	indexMagic   = "lodge mail index 1\n" // then a CRC-32C of the rest
)

var errIndex = errors.New("damaged index")

// An index is these, little endian: a head, its segments, its entries. It is a cache of what the log
// up to Segment and Offset leads to.
type (
	indexHead struct {
		Validity, NextUID, Cursor, Segment uint32
		Offset                             int64
		Segments, Entries                  uint32
	}
	indexSegment struct {
		Number uint32
		Marker marker
	}
	indexEntry struct {
		UID             uint32
		Flags           Flags
		File            bool
		QueueID         [queueIDBytes]byte
		Bytes, Received int64 // ms of Unix
		Segment, Head   uint32
		Offset, Length  int64
	}
)

// writeIndex replaces the index, synced.
func (b *Box) writeIndex() error {
	s := b.state
	head := indexHead{Validity: s.Validity, NextUID: s.NextUID, Cursor: s.cursor, Offset: b.end}
	segments := make([]indexSegment, 0, len(s.segments))
	for _, g := range s.segments {
		segments = append(segments, indexSegment{g.number, g.marker})
		head.Segment = g.number
	}
	entries := make([]indexEntry, 0, s.list.Len())
	for _, e := range s.list.All() {
		entries = append(entries, indexEntry{
			UID: e.UID, Flags: e.Flags, File: e.at.file, QueueID: [queueIDBytes]byte([]byte(e.QueueID)),
			Bytes: e.Bytes, Received: e.Received.UnixMilli(),
			Segment: e.at.segment, Head: e.at.head, Offset: e.at.offset, Length: e.at.length,
		})
	}
	head.Segments, head.Entries = uint32(len(segments)), uint32(len(entries)) // numbers of both have 32 bits
	buf := append([]byte(indexMagic), 0, 0, 0, 0)
	for _, part := range []any{head, segments, entries} {
		var err error
		if buf, err = binary.Append(buf, binary.LittleEndian, part); err != nil {
			return fmt.Errorf("encode index: %w", err)
		}
	}
	sum := checksum(buf[len(indexMagic)+4:])
	binary.LittleEndian.PutUint32(buf[len(indexMagic):], sum)
	if err := durable.WriteFile(filepath.Join(b.log, indexName), buf, 0o600); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	b.dirty = false
	return nil
}

// readIndex returns the state that an index holds, and the offset in its last segment up to which it
// does. It fails with errIndex over damage.
func readIndex(path string) (*state, int64, error) {
	buf, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read index: %w", err)
	}
	if len(buf) < len(indexMagic)+4 || string(buf[:len(indexMagic)]) != indexMagic {
		return nil, 0, errIndex
	}
	buf = buf[len(indexMagic):]
	if checksum(buf[4:]) != binary.LittleEndian.Uint32(buf) {
		return nil, 0, errIndex
	}
	var head indexHead
	n, err := binary.Decode(buf[4:], binary.LittleEndian, &head)
	buf = buf[4+n:]
	if err != nil || len(buf) != int(head.Segments)*binary.Size(indexSegment{})+int(head.Entries)*binary.Size(indexEntry{}) {
		return nil, 0, errIndex
	}
	segments, entries := make([]indexSegment, head.Segments), make([]indexEntry, head.Entries)
	n, err = binary.Decode(buf, binary.LittleEndian, segments)
	_, err2 := binary.Decode(buf[n:], binary.LittleEndian, entries)
	if err != nil || err2 != nil {
		return nil, 0, errIndex
	}
	return head.state(segments, entries), head.Offset, nil
}

func (h indexHead) state(segments []indexSegment, entries []indexEntry) *state {
	s := newState()
	s.Validity, s.NextUID, s.cursor = h.Validity, h.NextUID, h.Cursor
	for _, g := range segments {
		s.segments = append(s.segments, segment{g.Number, g.Marker})
	}
	for _, e := range entries {
		entry := Entry{
			QueueID: string(e.QueueID[:]), UID: e.UID, Flags: e.Flags, Bytes: e.Bytes, Received: time.UnixMilli(e.Received).UTC(),
			at: place{segment: e.Segment, head: e.Head, offset: e.Offset, length: e.Length, file: e.File},
		}
		s.list.add(entry)
		s.count(entry, 1)
	}
	return s
}
