package mailbox

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
)

const (
	queueIDBytes    = 26
	queueIDAlphabet = "0123456789abcdefghijklmnopqrstuv"
)

// NewQueueID returns a unique name that sorts by time: 48 bits of milliseconds and 80 random bits,
// as 26 characters of a-v and 0-9. It is safe as a file name and as a Maildir name.
func NewQueueID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli())) // after 1970
	copy(b[:6], ms[2:])
	return base32.NewEncoding(queueIDAlphabet).WithPadding(base32.NoPadding).EncodeToString(b[:])
}

func isQueueID(s string) bool {
	return len(s) == queueIDBytes && strings.Trim(s, queueIDAlphabet) == ""
}
