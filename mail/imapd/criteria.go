package imapd

import (
	netmail "net/mail"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"lodge/mail/mailbox"
	"lodge/mail/mime"
)

// candidate is a message being tested; it is opened only if a criterion needs its content.
type candidate struct {
	selected
	session *session
	now     *mailbox.Snapshot
	finder  *finder
	content *mailbox.Content
	root    *mime.Part
	head    []byte // nil until it is read
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
		if !c.session.view.matcher(set)(c.seq, c.UID) {
			return false
		}
	}
	for _, set := range want.UID {
		if !c.session.view.matcher(set)(c.seq, c.UID) {
			return false
		}
	}
	has := func(flag imap.Flag) bool {
		f := fromIMAP([]imap.Flag{flag}) | c.now.Keyword(string(flag))
		return f != 0 && c.Flags&f != 0
	}
	return !slices.ContainsFunc(want.NotFlag, has) &&
		!slices.ContainsFunc(want.Flag, func(f imap.Flag) bool { return !has(f) }) &&
		between(c.Received, want.Since, want.Before) &&
		(want.Larger == 0 || c.Bytes > want.Larger) &&
		(want.Smaller == 0 || c.Bytes < want.Smaller)
}

func (c *candidate) fitsHeader(want *imap.SearchCriteria) (bool, error) {
	dated := !want.SentSince.IsZero() || !want.SentBefore.IsZero()
	if len(want.Header) == 0 && !dated {
		return true, nil
	}
	if err := c.readHeader(); err != nil {
		return false, err
	}
	if dated && !c.sentBetween(want.SentSince, want.SentBefore) {
		return false, nil
	}
	for _, field := range want.Header {
		if !c.finder.inFields(c.head, field.Key, fold(field.Value)) {
			return false, nil
		}
	}
	return true, nil
}

// sentBetween compares the Date field. One that is missing or invalid is in no range.
func (c *candidate) sentBetween(since, before time.Time) bool {
	for name, field := range mime.Fields(c.head) {
		if strings.EqualFold(name, "Date") {
			sent, err := netmail.ParseDate(mime.Value(field))
			return err == nil && between(sent, since, before)
		}
	}
	return false
}

func (c *candidate) fitsText(want *imap.SearchCriteria) (bool, error) {
	if len(want.Text)+len(want.Body) == 0 {
		return true, nil
	}
	c.session.server.parsing <- struct{}{}
	defer func() { <-c.session.server.parsing }()
	if err := c.findParts(); err != nil {
		return false, err
	}
	for _, text := range want.Text {
		if ok, err := c.finder.inPart(c.reader(), c.root, fold(text), true); !ok || err != nil {
			return false, err
		}
	}
	for _, text := range want.Body {
		if ok, err := c.finder.inPart(c.reader(), c.root, fold(text), false); !ok || err != nil {
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
		c.content, err = c.session.open(c.selected)
	}
	return err
}

func (c *candidate) reader() metered { return metered{c.content, c.finder.budget} }

func (c *candidate) findParts() error {
	if c.root != nil {
		return nil
	}
	if err := c.open(); err != nil {
		return err
	}
	root, err := mime.Walk(c.reader(), c.Bytes)
	c.root = root
	return err
}

func (c *candidate) readHeader() error {
	if c.head != nil {
		return nil
	}
	if err := c.open(); err != nil {
		return err
	}
	n, err := mime.HeaderLen(c.reader(), c.Bytes)
	if err != nil {
		return err
	}
	c.head, err = readHeader(c.content, mime.Span{To: n}, maxHeaderBytes) // HeaderLen has paid for it
	return err
}

// between compares days, whatever the time zone (RFC 9051 §6.4.4); zero bounds are open.
func between(t, since, before time.Time) bool {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !day.Before(since)) && (before.IsZero() || day.Before(before))
}
