package imapd

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-message/textproto"

	"lodge/mail/mailbox"
)

// Fetch writes the requested items of each message.
func (s *session) Fetch(w *imapserver.FetchWriter, set imap.NumSet, options *imap.FetchOptions) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	now := s.box.Snapshot()
	picked := s.view.pick(set, now)
	if err := s.markSeen(now, picked, options); err != nil {
		return s.answer(err)
	}
	for _, m := range picked {
		if err := s.fetch(w, m, options); err != nil {
			return err
		}
	}
	return nil
}

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
		return s.answer(err)
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
		out.WriteFlags(toIMAP(m.Flags))
	}
	if options.InternalDate {
		out.WriteInternalDate(m.Received)
	}
	if options.RFC822Size {
		out.WriteRFC822Size(m.Bytes)
	}
	err = parts.write(out, options)
	return errors.Join(err, out.Close())
}

// content opens the message if an item needs it.
func (s *session) content(m selected, options *imap.FetchOptions) (*mailbox.Content, error) {
	if !options.Envelope && options.BodyStructure == nil && len(options.BodySection) == 0 {
		return nil, nil // no item needs it
	}
	return s.box.Open(m.UID)
}

// parts are the items of a message in a response. They are made before the response begins, so that
// a failure is a clean NO.
type parts struct {
	envelope  *imap.Envelope
	structure imap.BodyStructure
	sections  []*io.SectionReader
}

func (s *session) prepare(c *mailbox.Content, m selected, options *imap.FetchOptions) (parts, error) {
	var p parts
	if len(options.BinarySection) > 0 || len(options.BinarySectionSize) > 0 {
		return p, no(imap.ResponseCodeCannot, "BINARY is not offered")
	}
	if c == nil {
		return p, nil
	}
	layout, err := scan(c, m.Bytes, needsParsing(options))
	if err != nil {
		return p, s.answer(err)
	}
	if options.Envelope {
		p.envelope = envelope(c, layout)
	}
	if options.BodyStructure != nil {
		p.structure = s.structure(c, layout)
	}
	for _, section := range options.BodySection {
		p.sections = append(p.sections, s.section(c, layout, section))
	}
	return p, nil
}

// needsParsing reports whether an item needs the MIME parts.
func needsParsing(options *imap.FetchOptions) bool {
	parse := options.BodyStructure != nil
	for _, section := range options.BodySection {
		parse = parse || len(section.Part) > 0
	}
	return parse
}

func (p parts) write(out *imapserver.FetchResponseWriter, options *imap.FetchOptions) error {
	if p.envelope != nil {
		out.WriteEnvelope(p.envelope)
	}
	if p.structure != nil {
		out.WriteBodyStructure(p.structure)
	}
	for i, r := range p.sections {
		literal := out.WriteBodySection(options.BodySection[i], r.Size())
		_, err := io.Copy(literal, r)
		if err := errors.Join(err, literal.Close()); err != nil {
			return err
		}
	}
	return nil
}

func envelope(c *mailbox.Content, l layout) *imap.Envelope {
	header, err := textproto.ReadHeader(bufio.NewReader(io.NewSectionReader(c, 0, min(l.header, maxHeaderBytes))))
	if err != nil && header.Len() == 0 {
		return &imap.Envelope{}
	}
	return imapserver.ExtractEnvelope(header)
}

// structure parses the message, or describes it as one opaque part when parsing costs too much.
func (s *session) structure(c *mailbox.Content, l layout) imap.BodyStructure {
	if l.costly() {
		return &imap.BodyStructureSinglePart{
			Type: "application", Subtype: "octet-stream", Encoding: "binary",
			Size:     uint32(l.size - l.header), // messages are far below 4 GiB
			Extended: &imap.BodyStructureSinglePartExt{},
		}
	}
	s.server.parsing <- struct{}{}
	defer func() { <-s.server.parsing }()
	return imapserver.ExtractBodyStructure(io.NewSectionReader(c, 0, l.size))
}

// section returns BODY[…]. The message, its header and its text are read from disk as they are
// sent; MIME parts and chosen header fields are made in memory.
func (s *session) section(c *mailbox.Content, l layout, section *imap.FetchItemBodySection) *io.SectionReader {
	chosen := len(section.HeaderFields)+len(section.HeaderFieldsNot) > 0
	from, to := int64(0), l.size
	switch {
	case len(section.Part) > 0 || chosen:
		made := s.extract(c, l, section)
		return partial(bytes.NewReader(made), 0, int64(len(made)), section.Partial)
	case section.Specifier == imap.PartSpecifierHeader:
		to = l.header
	case section.Specifier == imap.PartSpecifierText:
		from = l.header
	}
	return partial(c, from, to, section.Partial)
}

func (s *session) extract(c *mailbox.Content, l layout, section *imap.FetchItemBodySection) []byte {
	size := l.size
	if len(section.Part) == 0 {
		size = l.header // chosen header fields
	}
	if l.costly() || len(section.Part) > maxNests {
		return nil
	}
	s.server.parsing <- struct{}{}
	defer func() { <-s.server.parsing }()
	whole := *section
	whole.Partial = nil // partial cuts: go-imap's arithmetic overflows
	return imapserver.ExtractBodySection(io.NewSectionReader(c, 0, size), &whole)
}

// partial is from:to of r, or the part of it that the client asked for.
func partial(r io.ReaderAt, from, to int64, p *imap.SectionPartial) *io.SectionReader {
	if p != nil {
		from += min(max(p.Offset, 0), to-from)
		to = from + min(max(p.Size, 0), to-from)
	}
	return io.NewSectionReader(r, from, to-from)
}
