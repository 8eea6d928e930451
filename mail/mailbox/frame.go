package mailbox

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

// kind is what a frame records.
type kind byte

const (
	kindHead     kind = 1 + iota // the first of a segment: value is UIDVALIDITY, uid the next UID
	kindCursor                   // every message up to uid is in the guest, or parked
	kindAdd                      // a message with its body
	kindAddFile                  // a message whose body is the file big/<queue id>
	kindFlags                    // the flags of the UIDs in meta are (old &^ clear) | flags
	kindExpunge                  // the UIDs in meta are removed
	kindKeywords                 // meta is the names of all keywords, see keywordFrame
	kindRewind                   // as kindCursor, and what is behind uid is not in the guest: it may go back
)

// frame is one record of a log. On disk, little endian:
//
//	0  8 the segment's marker     16 4 UID                  36 8 bytes of the body
//	8  4 CRC-32C of 12 to the     20 8 received, ms of Unix 44 4 CRC-32C of the body
//	     end of meta              28 4 length of meta       48   meta, then an inline body
//	12 4 kind, flags, clear, 0    32 4 value
//
// Keywords are in the value of a message and of a change of flags; those to clear are in the latter's
// place for a body's checksum. The marker is random and only in the name of the segment's file, so that no stranger can write a
// message whose bytes pass as frames when damage makes a reader search for the next one.
type frame struct {
	kind         kind
	flags, clear Flags
	uid, value   uint32
	received     time.Time
	meta         []byte
	bytes        int64 // of the body
	sum          uint32
	body         []byte // of a kindAdd
}

const (
	headBytes    = 48
	maxMetaBytes = 16 << 20 // the UIDs of four million messages
)

var errFrame = errors.New("damaged frame")

type marker [8]byte

func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli()) }

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // the standard library caches it

// length is that of the frame on disk.
func (f *frame) length() int64 {
	n := headBytes + int64(len(f.meta))
	if f.kind == kindAdd {
		n += f.bytes
	}
	return n
}

// encode appends the frame to buf.
func (f *frame) encode(buf []byte, m marker) []byte {
	le := binary.LittleEndian
	start := len(buf)
	value, sum := f.value, f.sum
	switch f.kind {
	case kindAdd, kindAddFile:
		value = f.flags.words()
	case kindFlags:
		value, sum = f.flags.words(), f.clear.words()
	}
	buf = append(buf, m[:]...)
	buf = append(buf, 0, 0, 0, 0, byte(f.kind), byte(f.flags), byte(f.clear), 0) //nolint:gosec // keywords follow below
	buf = le.AppendUint32(buf, f.uid)
	buf = le.AppendUint64(buf, uint64(f.received.UnixMilli())) // two's complement, back in decode
	buf = le.AppendUint32(buf, uint32(len(f.meta)))            // of maxMetaBytes at most
	buf = le.AppendUint32(buf, value)
	buf = le.AppendUint64(buf, uint64(f.bytes)) // never negative
	buf = le.AppendUint32(buf, sum)
	buf = append(buf, f.meta...)
	le.PutUint32(buf[start+8:], checksum(buf[start+12:]))
	return append(buf, f.body...)
}

// decodeHead reads the fixed part of a frame. It returns the length of meta and of an inline body,
// both within limits, or errFrame. Nothing else of it is to be believed before decodeMeta.
func decodeHead(b []byte, m marker) (meta, body int, err error) {
	if len(b) < headBytes || marker(b[:8]) != m {
		return 0, 0, errFrame
	}
	size, bytes := binary.LittleEndian.Uint32(b[28:]), binary.LittleEndian.Uint64(b[36:])
	if size > maxMetaBytes || bytes > maxBodyBytes {
		return 0, 0, errFrame
	}
	if kind(b[12]) == kindAdd {
		if bytes > maxInlineBytes {
			return 0, 0, errFrame
		}
		body = int(bytes)
	}
	return int(size), body, nil
}

// decodeMeta reads a frame from its fixed part and meta, which it shares.
func decodeMeta(b []byte) (frame, error) {
	le := binary.LittleEndian
	if checksum(b[12:]) != le.Uint32(b[8:]) {
		return frame{}, errFrame
	}
	f := frame{
		kind: kind(b[12]), flags: Flags(b[13]), clear: Flags(b[14]), uid: le.Uint32(b[16:]), value: le.Uint32(b[32:]),
		received: time.UnixMilli(int64(le.Uint64(b[20:]))).UTC(), bytes: int64(le.Uint64(b[36:])), //nolint:gosec // as encode
		sum: le.Uint32(b[44:]), meta: b[headBytes:],
	}
	switch f.kind {
	case kindAdd, kindAddFile:
		f.flags |= wordFlags(f.value)
		f.value = 0
	case kindFlags:
		f.flags |= wordFlags(f.value)
		f.clear |= wordFlags(f.sum)
		f.value, f.sum = 0, 0
	}
	return f, nil
}

// envelope is the meta of a message: four strings, each with its length, then the trace headers. An
// inline body follows them directly.
type envelope struct{ id, from, rcpt, subject, head string }

func (e envelope) encode() []byte {
	var buf []byte
	for _, s := range []string{e.id, e.from, e.rcpt, e.subject} {
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		buf = append(buf, s...)
	}
	return append(buf, e.head...)
}

func decodeEnvelope(meta []byte) (envelope, error) {
	var e envelope
	for _, s := range []*string{&e.id, &e.from, &e.rcpt, &e.subject} {
		n, used := binary.Uvarint(meta)
		if used <= 0 || n > uint64(len(meta)-used) {
			return e, errFrame
		}
		*s = string(meta[used : used+int(n)]) // fits: it is at most len(meta)
		meta = meta[used+int(n):]
	}
	if !isQueueID(e.id) {
		return e, errFrame
	}
	e.head = string(meta)
	return e, nil
}

func encodeUIDs(uids []uint32) []byte {
	buf := make([]byte, 0, 4*len(uids))
	for _, uid := range uids {
		buf = binary.LittleEndian.AppendUint32(buf, uid)
	}
	return buf
}

func decodeUIDs(meta []byte) []uint32 {
	uids := make([]uint32, 0, len(meta)/4)
	for ; len(meta) >= 4; meta = meta[4:] {
		uids = append(uids, binary.LittleEndian.Uint32(meta))
	}
	return uids
}
