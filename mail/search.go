package mail

import (
	"context"
	"net/textproto"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

const (
	maxTerms      = 20 // of a search
	maxTermBytes  = 200
	searchTime    = 30 * time.Second
	maxSearches   = 4 // at once; each reads one message after the other
	searchesPerVM = 1
)

// filter is what a search asks of a message beside what IMAP's SEARCH does.
type filter struct {
	want          imap.SearchCriteria
	id            string
	waiting, done bool
	since, before time.Time
}

// parseTerms reads the terms of a search, all of which must fit:
//
//	TEXT            anywhere in the message, decoded, whatever the case
//	from:TEXT to:TEXT cc:TEXT subject:TEXT   in that field of the header
//	body:TEXT       in the text of the message
//	id:QUEUE-ID     is that message
//	is:waiting is:delivered                  whether it is in the VM
//	since:TIME before:TIME                   received then: 2026-01-31, or 7d ago
//
// A word before the colon that is none of these is part of a text, as in "https://example.com".
func parseTerms(terms []string, now time.Time) (f filter, err error) {
	if len(terms) == 0 || len(terms) > maxTerms {
		return f, gateway.Invalid("expected 1 to %d terms of a search, not %d", maxTerms, len(terms)).WithHint("A term is a text, or field:text: from:ada@example.com")
	}
	for _, term := range terms {
		if strings.TrimSpace(term) == "" || len(term) > maxTermBytes {
			return f, gateway.Invalid("a term of a search has 1 to %d bytes", maxTermBytes)
		}
		if err := f.add(term, now); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *filter) add(term string, now time.Time) (err error) {
	field, value, ok := strings.Cut(term, ":")
	switch field = strings.ToLower(field); {
	case !ok:
		field, value = "", term
	case value == "":
		return gateway.Invalid("%.100q has no text behind the colon", term)
	}
	switch field {
	case "from", "to", "cc", "subject":
		f.want.Header = append(f.want.Header, imap.SearchCriteriaHeaderField{Key: textproto.CanonicalMIMEHeaderKey(field), Value: value})
	case "body":
		f.want.Body = append(f.want.Body, value)
	case "id":
		f.id = value
	case "is":
		switch value {
		case "waiting":
			f.waiting = true
		case "delivered":
			f.done = true
		default:
			return gateway.Invalid("not a state of a message: %.100q", value).WithHint("is:waiting or is:delivered")
		}
	case "since":
		f.since, err = gateway.ParseMoment(value, now)
	case "before":
		f.before, err = gateway.ParseMoment(value, now)
	default:
		f.want.Text = append(f.want.Text, term)
	}
	return err
}

// fits tests what needs no file.
func (f *filter) fits(e mailbox.Entry, delivered bool) bool {
	switch {
	case f.id != "" && e.QueueID != f.id,
		f.waiting && delivered, f.done && !delivered,
		!f.since.IsZero() && e.Received.Before(f.since),
		!f.before.IsZero() && !e.Received.Before(f.before):
		return false
	}
	return true
}

// Search returns the newest messages that fit all terms, at most limit, the newest first; see parseTerms. It fails
// with KindUnavailable if that takes too long, or while another search of the VM's mail is under way.
func (s *Server) Search(ctx context.Context, id gateway.ID, terms []string, limit int) ([]gateway.Message, error) {
	f, err := parseTerms(terms, time.Now())
	if err != nil {
		return nil, err
	}
	box, err := s.box(id)
	if err != nil {
		return nil, err
	}
	leave, ok := s.searches.Enter(id)
	if !ok {
		return nil, gateway.Errorf(gateway.KindUnavailable, "another search is under way").WithHint("Try again when it has ended.")
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, searchTime)
	defer cancel()
	shown := box.Snapshot()
	found, err := s.imap.Find(ctx, box, &f.want, func(e mailbox.Entry) bool { return f.fits(e, shown.Delivered(e)) }, limit)
	if err != nil {
		return nil, err
	}
	list := box.Describe(found)
	s.replica.Explain(id, list)
	return list, nil
}
