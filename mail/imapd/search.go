package imapd

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-message/textproto"

	"lodge/gateway"
	"lodge/mail/mailbox"
	"lodge/mail/mime"
)

// Search finds messages. TEXT and BODY compare the raw bytes of the message, without case and
// without decoding.
func (s *session) Search(kind imapserver.NumKind, criteria *imap.SearchCriteria, _ *imap.SearchOptions) (*imap.SearchData, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	var data imap.SearchData
	var seqs imap.SeqSet
	var uids imap.UIDSet
	for _, m := range s.view.pick(imap.UIDSet{{Start: 1, Stop: 0}}, s.box.Snapshot()) {
		c := candidate{selected: m, view: s.view, box: s.box}
		fits, err := c.fits(criteria)
		c.close()
		if gateway.KindOf(err) == gateway.KindNotFound { // expunged meanwhile
			continue
		}
		if err != nil {
			return nil, s.answer(err)
		}
		if !fits {
			continue
		}
		num := m.seq
		if kind == imapserver.NumKindUID {
			num = m.UID
		}
		seqs.AddNum(m.seq)
		uids.AddNum(imap.UID(m.UID))
		if data.Min == 0 {
			data.Min = num
		}
		data.Max = num
		data.Count++
	}
	data.All = seqs
	if kind == imapserver.NumKindUID {
		data.All = uids
	}
	return &data, nil
}

// candidate is a message being tested; it is opened only if a criterion needs its content.
type candidate struct {
	selected
	view    *view
	box     *mailbox.Box
	content *mailbox.Content
	head    *mail.Header
}

func (c *candidate) close() {
	if c.content != nil {
		_ = c.content.Close() // only read
	}
}

// fits reports whether all criteria hold, the cheap ones first.
func (c *candidate) fits(want *imap.SearchCriteria) (bool, error) {
	if !c.fitsEntry(want) {
		return false, nil
	}
	for _, test := range []func(*imap.SearchCriteria) (bool, error){c.fitsHeader, c.fitsText, c.fitsNot, c.fitsOr} {
		if ok, err := test(want); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *candidate) fitsEntry(want *imap.SearchCriteria) bool {
	for _, set := range want.SeqNum {
		if !c.view.matcher(set)(c.seq, c.UID) {
			return false
		}
	}
	for _, set := range want.UID {
		if !c.view.matcher(set)(c.seq, c.UID) {
			return false
		}
	}
	has := func(flag imap.Flag) bool {
		f := fromIMAP([]imap.Flag{flag})
		return f != 0 && c.Flags&f != 0
	}
	return !slices.ContainsFunc(want.NotFlag, has) &&
		!slices.ContainsFunc(want.Flag, func(f imap.Flag) bool { return !has(f) }) &&
		between(c.Received, want.Since, want.Before) &&
		(want.Larger == 0 || c.Bytes > want.Larger) &&
		(want.Smaller == 0 || c.Bytes < want.Smaller)
}

func (c *candidate) fitsHeader(want *imap.SearchCriteria) (bool, error) {
	if len(want.Header) == 0 && want.SentSince.IsZero() && want.SentBefore.IsZero() {
		return true, nil
	}
	if err := c.readHeader(); err != nil {
		return false, err
	}
	if !want.SentSince.IsZero() || !want.SentBefore.IsZero() {
		sent, err := c.head.Date()
		if err != nil || !between(sent, want.SentSince, want.SentBefore) {
			return false, nil // an unreadable Date matches no date
		}
	}
	for _, field := range want.Header {
		if !hasField(c.head, field) {
			return false, nil
		}
	}
	return true, nil
}

func hasField(head *mail.Header, want imap.SearchCriteriaHeaderField) bool {
	fields := head.FieldsByKey(want.Key)
	for fields.Next() {
		text, err := fields.Text()
		if err != nil {
			text = fields.Value() // unknown encoding: raw
		}
		if strings.Contains(strings.ToLower(text), strings.ToLower(want.Value)) {
			return true
		}
	}
	return false
}

func (c *candidate) fitsText(want *imap.SearchCriteria) (bool, error) {
	if len(want.Text)+len(want.Body) == 0 {
		return true, nil
	}
	if err := c.open(); err != nil {
		return false, err
	}
	header, err := mime.HeaderLen(c.content, c.Bytes)
	if err != nil {
		return false, err
	}
	for _, text := range want.Text {
		if ok, err := contains(io.NewSectionReader(c.content, 0, c.Bytes), text); !ok || err != nil {
			return false, err
		}
	}
	for _, text := range want.Body {
		if ok, err := contains(io.NewSectionReader(c.content, header, c.Bytes-header), text); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *candidate) fitsNot(want *imap.SearchCriteria) (bool, error) {
	for i := range want.Not {
		if ok, err := c.fits(&want.Not[i]); ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *candidate) fitsOr(want *imap.SearchCriteria) (bool, error) {
	for i := range want.Or {
		one, err := c.fits(&want.Or[i][0])
		if err == nil && !one {
			one, err = c.fits(&want.Or[i][1])
		}
		if !one || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *candidate) open() (err error) {
	if c.content == nil {
		c.content, err = c.box.Open(c.UID)
	}
	return err
}

func (c *candidate) readHeader() error {
	if c.head != nil {
		return nil
	}
	if err := c.open(); err != nil {
		return err
	}
	header, err := textproto.ReadHeader(bufio.NewReader(io.NewSectionReader(c.content, 0, min(c.Bytes, maxHeaderBytes))))
	if err != nil && header.Len() == 0 {
		header = textproto.Header{} // an unreadable header matches nothing
	}
	c.head = &mail.Header{}
	c.head.Header.Header = header
	return nil
}

// between compares days, whatever the time zone (RFC 9051 §6.4.4); zero bounds are open.
func between(t, since, before time.Time) bool {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !day.Before(since)) && (before.IsZero() || day.Before(before))
}

// contains searches for text without case, in pieces that overlap by the text's length.
func contains(r io.Reader, text string) (bool, error) {
	want := bytes.ToLower([]byte(text))
	buf := make([]byte, 0, 64<<10+len(want))
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if bytes.Contains(bytes.ToLower(buf), want) {
			return true, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		keep := min(len(buf), max(len(want)-1, 0))
		buf = append(buf[:0], buf[len(buf)-keep:]...)
	}
}
