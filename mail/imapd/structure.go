package imapd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-message/textproto"

	"lodge/mail/mime"
)

const (
	maxHeaderBytes = 1 << 20  // of a header of which fields are chosen
	maxInnerHeader = 16 << 10 // of the header of a message in a message, for its envelope
)

// structure describes a part for BODYSTRUCTURE and BODY (RFC 3501 §7.4.2).
func structure(r io.ReaderAt, p *mime.Part) imap.BodyStructure {
	disposition, language, location := disposition(p), language(p), p.Field("location")
	if p.Type == "multipart" {
		s := &imap.BodyStructureMultiPart{
			Subtype: p.Subtype,
			Extended: &imap.BodyStructureMultiPartExt{
				Params: p.Params, Disposition: disposition, Language: language, Location: location,
			},
		}
		for _, child := range p.Parts {
			s.Children = append(s.Children, structure(r, child))
		}
		return s
	}
	encoding, _ := mime.Params(p.Field("transfer-encoding")) // without comments
	s := &imap.BodyStructureSinglePart{
		Type: p.Type, Subtype: p.Subtype, Params: p.Params,
		ID: p.Field("id"), Description: p.Field("description"), Encoding: encoding,
		Size:     uint32(p.Body.Len()), // messages are far below 4 GiB
		Extended: &imap.BodyStructureSinglePartExt{Disposition: disposition, Language: language, Location: location},
	}
	switch {
	case p.Message != nil:
		s.MessageRFC822 = &imap.BodyStructureMessageRFC822{
			Envelope: envelope(head(r, p.Message.Header, maxInnerHeader)), BodyStructure: structure(r, p.Message), NumLines: p.Lines,
		}
	case p.Type == "text":
		s.Text = &imap.BodyStructureText{NumLines: p.Lines}
	}
	return s
}

func disposition(p *mime.Part) *imap.BodyStructureDisposition {
	value, params := mime.Params(p.Field("disposition"))
	if value == "" {
		return nil
	}
	return &imap.BodyStructureDisposition{Value: value, Params: params}
}

func language(p *mime.Part) []string {
	var list []string
	for tag := range strings.SplitSeq(p.Field("language"), ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			list = append(list, tag)
		}
	}
	return list
}

// head reads a header, at most limit bytes of it.
func head(r io.ReaderAt, span mime.Span, limit int64) []byte {
	header, err := readHeader(r, span, limit)
	if err != nil {
		return nil // session.open has refused a message that cannot be read
	}
	return header
}

// readHeader returns at most limit bytes of a header, never nil without an error.
func readHeader(r io.ReaderAt, span mime.Span, limit int64) ([]byte, error) {
	header, err := io.ReadAll(io.NewSectionReader(r, span.From, min(span.Len(), limit)))
	if err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	return header, nil
}

// envelope reads the fields of an ENVELOPE. A line that is no field costs only itself.
func envelope(header []byte) *imap.Envelope {
	fields := chosen(header, []string{
		"Date", "Subject", "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "In-Reply-To", "Message-Id",
	}, true)
	parsed, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(fields)))
	if err != nil && parsed.Len() == 0 {
		return &imap.Envelope{}
	}
	return imapserver.ExtractEnvelope(parsed)
}

// chosen returns the fields of a header that are in names, or those that are not, and the empty line.
func chosen(header []byte, names []string, in bool) []byte {
	want := map[string]bool{}
	for _, name := range names {
		want[strings.ToLower(name)] = true
	}
	var out []byte
	for name, field := range mime.Fields(header) {
		if want[strings.ToLower(name)] == in {
			out = append(out, field...)
		}
	}
	return append(out, "\r\n"...)
}
