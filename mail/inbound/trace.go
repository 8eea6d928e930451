package inbound

import (
	"bufio"
	"bytes"
	"fmt"
	"mime"
	"net"
	"net/textproto"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// trace is where a message came from, for its headers.
type trace struct {
	helo   string
	remote string // IP address
	by     string
	with   string // protocol
	now    time.Time
	// results is the Authentication-Results header with its CRLF, or empty.
	results string
}

// head makes the trace headers of one recipient's copy (RFC 5321 §4.4). The addresses are as in
// headers: smtpd.Path.String.
func (t trace) head(queueID, from, rcpt string) string {
	return fmt.Sprintf("Return-Path: <%s>\r\nDelivered-To: %s\r\n%sReceived: from %s (%s)\r\n\tby %s with %s id %s\r\n\tfor <%s>; %s\r\n",
		from, rcpt, t.results, Printable(t.helo), literal(t.remote), t.by, t.with, queueID, rcpt, t.now.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
}

// literal writes an IP address as an address literal (RFC 5321 §4.1.3).
func literal(remote string) string {
	if ip := net.ParseIP(remote); ip != nil && ip.To4() == nil {
		return "[IPv6:" + remote + "]"
	}
	return "[" + remote + "]"
}

// Printable makes a client's HELO name fit for a header, where it must not add lines or comments.
func Printable(helo string) string {
	clean := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`()<>;,"\`, r) {
			return '?'
		}
		return r
	}, helo)
	return clean[:min(len(clean), 255)]
}

// maxSubjectBytes of a subject are kept for lists.
const maxSubjectBytes = 200

// Subject finds the Subject in a message's first bytes: decoded (RFC 2047), one line, without
// control characters.
func Subject(first []byte) string {
	first = append(bytes.Clone(first), "\r\n\r\n"...)
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(first))).ReadMIMEHeader()
	if err != nil && len(header) == 0 {
		return "" // no readable header
	}
	raw := header.Get("Subject")
	text, err := new(mime.WordDecoder).DecodeHeader(raw)
	if err != nil {
		text = raw // unknown charset
	}
	return shorten(strings.ToValidUTF8(text, "\uFFFD"), maxSubjectBytes)
}

func shorten(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
