package mailbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"
)

// The operations in an index.
const (
	opHead    = "head"    // first record: Validity, UID = the next UID
	opAdd     = "add"     // a message: everything but UIDs and Clear
	opFlags   = "flags"   // flags of UIDs = (old &^ Clear) | Flags
	opExpunge = "expunge" // UIDs are removed
	opCursor  = "cursor"  // every message up to UID is on the guest's disk
)

// record is one line of an index: eight hex digits of CRC-32C over the JSON, its length in eight
// hex digits, the JSON, a newline. JSON never contains a raw newline, so records behind a damaged
// line can be read.
type record struct {
	Op       string    `json:"op"`
	UID      uint32    `json:"uid,omitempty"`
	UIDs     []uint32  `json:"uids,omitempty"`
	Validity uint32    `json:"validity,omitempty"`
	Flags    Flags     `json:"flags,omitempty"`
	Clear    Flags     `json:"clear,omitempty"`
	QueueID  string    `json:"id,omitempty"`
	From     string    `json:"from,omitempty"`
	Rcpt     string    `json:"rcpt,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	Head     string    `json:"head,omitempty"`  // the trace headers, before the body
	Bytes    int64     `json:"bytes,omitempty"` // of head and body
	Received time.Time `json:"at,omitzero"`
}

// maxRecordBytes is far more than a record needs: two addresses, a subject, trace headers, or the
// UIDs of a mailbox.
const maxRecordBytes = 16 << 20

const framing = 18 // checksum, space, length, space

var errRecord = errors.New("damaged record")

// encode appends r to buf as a line.
func (r record) encode(buf []byte) ([]byte, error) {
	payload, err := json.Marshal(r)
	if err != nil {
		return buf, fmt.Errorf("encode record: %w", err)
	}
	buf = fmt.Appendf(buf, "%08x %08x ", crc32.Checksum(payload, castagnoli()), len(payload))
	buf = append(buf, payload...)
	return append(buf, '\n'), nil
}

// decode reads one line, with or without its newline. Any damage gives errRecord.
func decode(line []byte) (record, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) < framing || line[8] != ' ' || line[17] != ' ' {
		return record{}, errRecord
	}
	sum, err1 := strconv.ParseUint(string(line[:8]), 16, 32)
	size, err2 := strconv.ParseUint(string(line[9:17]), 16, 32)
	payload := line[framing:]
	if err1 != nil || err2 != nil || size != uint64(len(payload)) {
		return record{}, errRecord
	}
	if uint64(crc32.Checksum(payload, castagnoli())) != sum {
		return record{}, errRecord
	}
	var r record
	if err := json.Unmarshal(payload, &r); err != nil {
		return record{}, errRecord
	}
	return r, nil
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // the standard library caches it

// Flags are the system flags of RFC 9051 §2.3.2 that are kept; keywords are not.
type Flags uint8

// The flags.
const (
	Seen Flags = 1 << iota
	Answered
	Flagged
	Deleted
	Draft

	AllFlags = Seen | Answered | Flagged | Deleted | Draft
)
