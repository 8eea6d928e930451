package imapd

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"lodge/gateway"
	"lodge/mail/mailbox"
	"lodge/mail/mime"
)

// Fetch writes the requested items of each message.
func (s *session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, options *imap.FetchOptions) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	picked, now := s.pick(set)
	if err := s.markSeen(now, picked, options); err != nil {
		return s.answer(err)
	}
	var damaged error
	for _, m := range picked {
		switch err := s.fetch(w, m, options); {
		case errors.Is(err, errDamaged):
			damaged = err // after the others
		case err != nil && gateway.KindOf(err) != gateway.KindNotFound: // it was expunged meanwhile
			return err
		}
	}
	return s.answer(damaged)
}

// errDamaged is of a message whose record is good and whose body cannot be read.
var errDamaged = errors.New("message damaged")

// markSeen sets \Seen for a fetch of a body without PEEK, and adds the flags to this response.
func (s *session) markSeen(now mailbox.Snapshot, picked []selected, options *imap.FetchOptions) error {
	peek := true
	for _, section := range options.BodySection {
		peek = peek && section.Peek
	}
	if peek || s.view.readOnly {
		return nil
	}
	var uids []uint32
	for i := range picked {
		if picked[i].Flags&mailbox.Seen == 0 {
			uids = append(uids, picked[i].UID)
			picked[i].Flags |= mailbox.Seen
		}
	}
	if len(uids) > 0 {
		options.Flags = true
	}
	return s.setFlags(now, uids, mailbox.Seen, 0)
}

func (s *session) fetch(w *imapserver.FetchWriter, m selected, options *imap.FetchOptions) error {
	content, err := s.content(m, options)
	if err != nil {
		return err
	}
	if content != nil {
		defer func() { _ = content.Close() }() // only read
	}
	parts, err := s.prepare(content, m, options)
	if err != nil {
		return err
	}
	out := w.CreateMessage(m.seq)
	if options.UID {
		out.WriteUID(imap.UID(m.UID))
	}
	if options.Flags {
		out.WriteFlags(s.flagNames(m.Flags))
	}
	if options.InternalDate {
		out.WriteInternalDate(m.Received)
	}
	if options.RFC822Size {
		out.WriteRFC822Size(m.Bytes)
	}
	if err := parts.write(out, options); err != nil {
		_ = s.conn.Close() // what follows would be read as the rest of a literal
		return err
	}
	return out.Close()
}

// content opens the message if an item needs it.
func (s *session) content(m selected, options *imap.FetchOptions) (*mailbox.Content, error) {
	if !options.Envelope && options.BodyStructure == nil && len(options.BodySection) == 0 {
		return nil, nil // no item needs it
	}
	return s.open(m)
}

// open opens a message. It fails with errDamaged if its last byte is not on disk.
func (s *session) open(m selected) (*mailbox.Content, error) {
	c, err := s.box.Open(m.UID)
	switch {
	case gateway.KindOf(err) == gateway.KindNotFound:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: UID %d: %w", errDamaged, m.UID, err)
	}
	return c, nil
}

// parts are the items of a message in a response. What can fail is done before the response begins,
// so that a failure is a clean NO.
type parts struct {
	envelope  *imap.Envelope
	structure imap.BodyStructure
	content   *mailbox.Content
	root      *mime.Part // for sections, which are made one at a time: a command can have a thousand
}

func (s *session) prepare(c *mailbox.Content, m selected, options *imap.FetchOptions) (parts, error) {
	var p parts
	if len(options.BinarySection) > 0 || len(options.BinarySectionSize) > 0 {
		return p, no(imap.ResponseCodeCannot, "BINARY is not offered")
	}
	if c == nil {
		return p, nil
	}
	root, err := s.parse(c, m, needsParts(options))
	if err != nil {
		return p, s.answer(err)
	}
	if options.Envelope {
		p.envelope = envelope(head(c, root.Header, maxHeaderBytes))
	}
	if options.BodyStructure != nil {
		p.structure = structure(c, root)
	}
	p.content, p.root = c, root
	return p, nil
}

// needsParts reports whether an item needs more than the message's header and body.
func needsParts(options *imap.FetchOptions) bool {
	need := options.BodyStructure != nil
	for _, section := range options.BodySection {
		need = need || len(section.Part) > 0
	}
	return need
}

// maxKept is what a session keeps of the last message's parts. Some 100 parts of ordinary mail fit.
const maxKept = 64 << 10

// parse finds the message's header and body, and its parts if asked. It keeps the parts of the last
// message, since clients fetch large ones in pieces.
func (s *session) parse(c *mailbox.Content, m selected, withParts bool) (*mime.Part, error) {
	if s.parsed != nil && s.parsedUID == m.UID {
		return s.parsed, nil
	}
	if !withParts {
		n, err := mime.HeaderLen(c, m.Bytes)
		return &mime.Part{Header: mime.Span{To: n}, Body: mime.Span{From: n, To: m.Bytes}}, err
	}
	s.server.parsing <- struct{}{}
	defer func() { <-s.server.parsing }()
	root, err := mime.Walk(c, m.Bytes)
	if err != nil {
		return nil, err
	}
	if root.Held() <= maxKept {
		s.parsed, s.parsedUID = root, m.UID
	}
	return root, nil
}

func (p parts) write(out *imapserver.FetchResponseWriter, options *imap.FetchOptions) error {
	if p.envelope != nil {
		out.WriteEnvelope(p.envelope)
	}
	if p.structure != nil {
		out.WriteBodyStructure(p.structure)
	}
	for _, item := range options.BodySection {
		r := section(p.content, p.root, item)
		literal := out.WriteBodySection(item, r.Size())
		_, err := io.Copy(literal, r)
		if err := errors.Join(err, literal.Close()); err != nil {
			return err
		}
	}
	return nil
}

// section returns BODY[…]: read from disk as it is sent, but for chosen header fields. What does not
// exist is empty.
func section(c *mailbox.Content, root *mime.Part, item *imap.FetchItemBodySection) *io.SectionReader {
	span := locate(root, item, c.Size())
	if names, in := item.HeaderFields, true; len(names)+len(item.HeaderFieldsNot) > 0 && span.Len() > 0 {
		if len(names) == 0 {
			names, in = item.HeaderFieldsNot, false
		}
		made := chosen(head(c, span, maxHeaderBytes), names, in)
		return partial(bytes.NewReader(made), 0, int64(len(made)), item.Partial)
	}
	return partial(c, span.From, span.To, item.Partial)
}

// locate returns where a section lies in the message (RFC 3501 §6.4.5).
func locate(root *mime.Part, item *imap.FetchItemBodySection, size int64) mime.Span {
	part := root.Find(item.Part)
	if part == nil {
		return mime.Span{}
	}
	message := part.Message
	if len(item.Part) == 0 {
		message = root
	}
	switch {
	case item.Specifier == imap.PartSpecifierMIME:
		return part.Header
	case item.Specifier == imap.PartSpecifierNone && len(item.Part) == 0:
		return mime.Span{To: size}
	case item.Specifier == imap.PartSpecifierNone:
		return part.Body
	case message == nil: // HEADER and TEXT are of messages only
		return mime.Span{}
	case item.Specifier == imap.PartSpecifierHeader:
		return message.Header
	default:
		return message.Body
	}
}

// partial is from:to of r, or the part of it that the client asked for.
func partial(r io.ReaderAt, from, to int64, p *imap.SectionPartial) *io.SectionReader {
	if p != nil {
		from += min(max(p.Offset, 0), to-from)
		to = from + min(max(p.Size, 0), to-from)
	}
	return io.NewSectionReader(r, from, to-from)
}
