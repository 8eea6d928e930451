package smtpd

import (
	"bufio"
	"bytes"
	"strings"
)

const (
	maxLineBytes = 64 << 10 // of a line in a message; RFC 5321 §4.5.3.1.6 requires 1000, some programs send more
	maxReceived  = 50       // headers; RFC 5321 §6.3 requires 100 in theory, and loops end sooner
)

// hop is the name of the header that each server on the way adds.
const hop = "received:"

// body is a message that is coming in: it checks what it gets, and passes it on to a Message until
// something is wrong with it.
type body struct {
	message Message
	out     *bufio.Writer
	limit   int64 // of bytes

	bytes    int64
	line     int64  // bytes of the current line so far
	cr       bool   // the last byte was a CR
	name     []byte // of the current header line: its first bytes, as many as hop has
	inBody   bool   // the empty line was there
	received int
	bare     bool  // it has a bare CR or LF
	fault    error // what is wrong with it: a Reply, or what a Write of the Message returned
}

func newBody(m Message, limit int64, out *bufio.Writer) *body {
	out.Reset(m)
	return &body{message: m, out: out, limit: limit, name: make([]byte, 0, len(hop))}
}

// add adds bytes in which a LF, if any, is the last. ended reports whether they end a line properly.
func (b *body) add(p []byte) (ended bool) {
	b.bytes += int64(len(p))
	b.line += int64(len(p))
	b.countHops(p)
	text, lf := bytes.CutSuffix(p, []byte("\n"))
	before := b.cr // of a LF
	if len(text) > 0 {
		cr := bytes.IndexByte(text, '\r')
		b.bare = b.bare || before || cr >= 0 && cr < len(text)-1
		before = cr >= 0
	}
	ended = lf && before
	b.bare = b.bare || lf && !before
	b.cr = before && !lf
	switch {
	case b.bare:
		b.refuse(replyBareLine())
	case b.line > maxLineBytes:
		b.refuse(replyLongLine())
	case b.bytes > b.limit:
		b.refuse(replyTooBig())
	case b.received > maxReceived:
		b.refuse(replyLoop())
	}
	if lf {
		b.inBody = b.inBody || b.line <= int64(len("\r\n"))
		b.line, b.name = 0, b.name[:0]
	}
	if b.fault == nil {
		b.keep(p)
	}
	return ended
}

// countHops counts the Received headers.
func (b *body) countHops(p []byte) {
	missing := len(hop) - len(b.name)
	if b.inBody || missing == 0 {
		return
	}
	b.name = append(b.name, p[:min(len(p), missing)]...)
	if strings.EqualFold(string(b.name), hop) {
		b.received++
	}
}

// refuse notes the first thing that is wrong with the message. It is still read, to its end.
func (b *body) refuse(err error) {
	if b.fault == nil {
		b.fault = err
	}
}

func (b *body) keep(p []byte) {
	if _, err := b.out.Write(p); err != nil {
		b.refuse(err)
	}
}

// excessive reports whether it is not worth reading on to keep the connection.
func (b *body) excessive() bool { return b.bytes > 2*b.limit }

// commit ends the message: it is kept, or removed.
func (b *body) commit() (queueID string, err error) {
	if b.cr {
		b.refuse(replyBareLine())
	}
	if b.fault == nil {
		if err := b.out.Flush(); err != nil {
			b.refuse(err)
		}
	}
	if b.fault == nil {
		queueID, b.fault = b.message.Commit()
	}
	if b.fault != nil {
		b.message.Abort(b.fault)
	}
	return queueID, b.fault
}
