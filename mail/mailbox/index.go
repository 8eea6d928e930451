package mailbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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

// indexParts are the parts of an index without its entries.
type indexParts struct {
	indexHead

	segments []indexSegment
	keywords []byte
}

// pieceBytes is how much of the entries is read at once: whole pages, few enough to be in the processor's cache for all
// that is done with them.
const pieceBytes = 32 * pageEntries * indexEntryBytes

// scanIndex reads an index, and calls visit with its entries, some whole pages at a time, all but the last ones of full
// length. They are not checked before it returns: over damage it fails with errIndex at the end. visit may keep the
// entries if fresh is set. It may end the scan by an error, which scanIndex returns.
func scanIndex(path string, fresh bool, visit func(entries []byte) error) (p indexParts, err error) {
	f, err := os.Open(path)
	if err != nil {
		return p, fmt.Errorf("open index: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	r := &indexReader{f: f}
	p.indexHead, p.segments, err = r.head()
	if err != nil {
		return p, err
	}
	var buf []byte
	for left := int64(p.Entries) * indexEntryBytes; left > 0; left -= int64(len(buf)) {
		if n := min(left, pieceBytes); fresh || int64(len(buf)) != n {
			buf = make([]byte, n)
		}
		if err := r.read(buf); err != nil {
			return p, err
		}
		if err := visit(buf); err != nil {
			return p, err
		}
	}
	p.keywords = make([]byte, r.left)
	if err := r.read(p.keywords); err != nil {
		return p, err
	}
	if r.sum != r.want {
		return p, errIndex
	}
	return p, nil
}

// indexReader reads an index from its beginning.
type indexReader struct {
	f         *os.File
	left      int64 // bytes of the file
	sum, want uint32
}

// read fills p, and counts it into the checksum.
func (r *indexReader) read(p []byte) error {
	if r.left -= int64(len(p)); r.left < 0 {
		return errIndex
	}
	switch _, err := io.ReadFull(r.f, p); {
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF): // it was cut meanwhile
		return errIndex
	case err != nil:
		return fmt.Errorf("read index: %w", err)
	}
	r.sum = crc32.Update(r.sum, castagnoli(), p)
	return nil
}

// head reads what is in front of the entries, which are as many as it has.
func (r *indexReader) head() (h indexHead, segments []indexSegment, err error) {
	info, err := r.f.Stat()
	if err != nil {
		return h, nil, fmt.Errorf("read index: %w", err)
	}
	r.left = info.Size()
	begin := make([]byte, len(indexMagic)+4)
	if err := r.read(begin); err != nil {
		return h, nil, err
	}
	if string(begin[:len(indexMagic)]) != indexMagic {
		return h, nil, errIndex
	}
	r.sum, r.want = 0, binary.LittleEndian.Uint32(begin[len(indexMagic):])
	buf := make([]byte, binary.Size(h))
	if err := r.read(buf); err != nil {
		return h, nil, err
	}
	_, err = binary.Decode(buf, binary.LittleEndian, &h)
	size := int64(h.Segments) * int64(binary.Size(indexSegment{}))
	if err != nil || r.left < size+int64(h.Entries)*indexEntryBytes {
		return h, nil, errIndex
	}
	buf, segments = make([]byte, size), make([]indexSegment, h.Segments)
	if err := r.read(buf); err != nil {
		return h, nil, err
	}
	if _, err := binary.Decode(buf, binary.LittleEndian, segments); err != nil {
		return h, nil, errIndex
	}
	return h, segments, nil
}

// readIndex returns the state that an index holds, and the offset in its last segment up to which it
// does. It fails with errIndex over damage.
func readIndex(path string) (*state, int64, error) {
	s := newState()
	p, err := scanIndex(path, true, func(entries []byte) error {
		s.take(entries)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	s.Validity, s.NextUID, s.cursor = p.Validity, p.NextUID, p.Cursor
	if len(p.keywords) > 0 {
		if s.Keywords, err = decodeKeywords(p.keywords); err != nil {
			return nil, 0, errIndex
		}
	}
	for _, g := range p.segments {
		s.segments = append(s.segments, segment{g.Number, g.Marker})
	}
	return s, p.Offset, nil
}
