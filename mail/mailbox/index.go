package mailbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"lodge/gateway/durable"
)

const (
	indexName    = "index"
	damagedIndex = "index.damaged"
	indexMagic   = "lodge mail index 1\n" // then a CRC-32C of the rest

	indexEvery = 16 << 20 // bytes that the log grows by before the index is written again; or its own length
)

var errIndex = errors.New("damaged index")

// An index is these, little endian: a head, its segments, its entries; then the names of keywords. It is a cache of what the log
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
)

// An entry of an index, which may have a million:
//
//	0  4 UID      5  1 whether it is a file   32  8 bytes            48  4 segment   56  4 offset
//	4  1 flags    6 26 queue id               40  8 received, in ms  52  4 head      60  4 keywords
//	                                                                                 64  8 length
const indexEntryBytes = 72

func appendEntry(buf []byte, e Entry) []byte {
	le := binary.LittleEndian
	file := byte(0)
	if e.at.file {
		file = 1
	}
	buf = append(le.AppendUint32(buf, e.UID), byte(e.Flags), file) //nolint:gosec // keywords follow below
	buf = append(buf, e.QueueID...)
	buf = le.AppendUint64(buf, uint64(e.Bytes))                // never negative
	buf = le.AppendUint64(buf, uint64(e.Received.UnixMilli())) // two's complement
	buf = le.AppendUint32(buf, e.at.segment)
	buf = le.AppendUint32(buf, e.at.head)
	buf = le.AppendUint32(buf, uint32(e.at.offset)) //nolint:gosec // of a segment
	buf = le.AppendUint32(buf, e.Flags.words())
	return le.AppendUint64(buf, uint64(e.at.length)) // nor is this
}

// decodePage reads up to pageEntries entries. Their queue ids share one string.
func decodePage(buf []byte) []Entry {
	le := binary.LittleEndian
	var ids strings.Builder
	ids.Grow(len(buf) / indexEntryBytes * queueIDBytes)
	for b := buf; len(b) > 0; b = b[indexEntryBytes:] {
		ids.Write(b[6:][:queueIDBytes])
	}
	names := ids.String()
	entries := make([]Entry, 0, len(buf)/indexEntryBytes)
	for b := buf; len(b) > 0; b = b[indexEntryBytes:] {
		entries = append(entries, Entry{
			QueueID: names[:queueIDBytes], UID: le.Uint32(b), Flags: Flags(b[4]) | wordFlags(le.Uint32(b[60:])), Bytes: int64(le.Uint64(b[32:])), //nolint:gosec // as appendEntry
			Received: time.UnixMilli(int64(le.Uint64(b[40:]))).UTC(), //nolint:gosec // as appendEntry
			at: place{
				segment: le.Uint32(b[48:]), head: le.Uint32(b[52:]), file: b[5] != 0,
				offset: int64(le.Uint32(b[56:])), length: int64(le.Uint64(b[64:])), //nolint:gosec // as appendEntry
			},
		})
		names = names[queueIDBytes:]
	}
	return entries
}

// writeIndex replaces the index, synced; see replay.damage for when it does not.
func (b *Box) writeIndex() error {
	if b.unkept {
		return nil
	}
	s := b.state
	head := indexHead{Validity: s.Validity, NextUID: s.NextUID, Cursor: s.cursor, Offset: b.end}
	segments := make([]indexSegment, 0, len(s.segments))
	for _, g := range s.segments {
		segments = append(segments, indexSegment{g.number, g.marker})
		head.Segment = g.number
	}
	head.Segments, head.Entries = uint32(len(segments)), uint32(s.list.Len()) // numbers of both have 32 bits
	buf := make([]byte, 0, len(indexMagic)+64+len(segments)*12+s.list.Len()*indexEntryBytes)
	buf = append(append(buf, indexMagic...), 0, 0, 0, 0)
	for _, part := range []any{head, segments} {
		var err error
		if buf, err = binary.Append(buf, binary.LittleEndian, part); err != nil {
			return fmt.Errorf("encode index: %w", err)
		}
	}
	for _, p := range s.list.Pages() {
		buf = p.encode(buf)
	}
	buf = append(buf, strings.Join(s.Keywords, " ")...)
	sum := checksum(buf[len(indexMagic)+4:])
	binary.LittleEndian.PutUint32(buf[len(indexMagic):], sum)
	b.grown = 0 // also after an error, which would only repeat
	if err := durable.WriteFile(filepath.Join(b.log, indexName), buf, 0o600); err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	b.dirty = false
	return nil
}

// index writes the index when the log has grown much, so that a start after a crash reads little of it.
func (b *Box) index() {
	if b.grown < max(indexEvery, int64(b.state.list.Len())*indexEntryBytes) {
		return
	}
	if err := b.writeIndex(); err != nil {
		b.logger.Warn("mailbox index not written", "err", err)
	}
}

// indexParts are the parts of an index. The entries are whole, and as many as the head has.
type indexParts struct {
	indexHead

	segments          []indexSegment
	entries, keywords []byte
}

func decodeIndex(buf []byte) (p indexParts, err error) {
	if len(buf) < len(indexMagic)+4 || string(buf[:len(indexMagic)]) != indexMagic {
		return p, errIndex
	}
	buf = buf[len(indexMagic):]
	if checksum(buf[4:]) != binary.LittleEndian.Uint32(buf) {
		return p, errIndex
	}
	n, err := binary.Decode(buf[4:], binary.LittleEndian, &p.indexHead)
	buf = buf[4+n:]
	size := int64(p.Segments)*int64(binary.Size(indexSegment{})) + int64(p.Entries)*indexEntryBytes
	if err != nil || int64(len(buf)) < size {
		return p, errIndex
	}
	p.segments = make([]indexSegment, p.Segments)
	if n, err = binary.Decode(buf, binary.LittleEndian, p.segments); err != nil {
		return p, errIndex
	}
	p.entries, p.keywords = buf[n:size], buf[size:]
	return p, nil
}

// readIndex returns the state that an index holds, and the offset in its last segment up to which it
// does. It fails with errIndex over damage.
func readIndex(path string) (*state, int64, error) {
	buf, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read index: %w", err)
	}
	p, err := decodeIndex(buf)
	if err != nil {
		return nil, 0, err
	}
	s := newState()
	s.Validity, s.NextUID, s.cursor = p.Validity, p.NextUID, p.Cursor
	if len(p.keywords) > 0 {
		if s.Keywords, err = decodeKeywords(p.keywords); err != nil {
			return nil, 0, errIndex
		}
	}
	for _, g := range p.segments {
		s.segments = append(s.segments, segment{g.Number, g.Marker})
	}
	s.take(p.entries)
	return s, p.Offset, nil
}
