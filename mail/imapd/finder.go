package imapd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	stdmime "mime"
	"strings"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/charset"
	"golang.org/x/text/cases"
	"golang.org/x/text/transform"

	"lodge/mail/mime"
)

const (
	pieceBytes  = 64 << 10 // of decoded text, compared at once
	decoderCost = 1 << 10  // a decoder takes about as much time as that many bytes
)

// finder looks for strings in messages as RFC 3501 §6.4.4 requires: transfer encodings, charsets and
// encoded words are decoded, and case is folded by Unicode's rules. The strings that it is given are
// folded.
//
// What is in an unknown charset or transfer encoding, and what does not decode, is compared as it
// is. It holds one piece of text at a time, however long a part is. All that it reads and decodes is
// paid from the budget.
type finder struct {
	budget *budget
	raw    *bufio.Reader // holds a line: the longest that quoted-printable is decoded in
	piece  []byte
	words  stdmime.WordDecoder
}

func newFinder(b *budget) *finder {
	f := &finder{budget: b, raw: bufio.NewReaderSize(nil, pieceBytes)}
	f.words.CharsetReader = f.charset
	return f
}

// charset decodes an encoded word.
func (f *finder) charset(name string, r io.Reader) (io.Reader, error) {
	if err := f.budget.spend(decoderCost); err != nil {
		return nil, err
	}
	decoded, err := charset.Reader(name, r)
	if err != nil {
		return r, nil // an unknown charset
	}
	return decoded, nil
}

// fold makes strings equal that differ in case only.
func fold(s string) string { return cases.Fold().String(s) }

// inFields reports whether a field of that name has want in its value.
func (f *finder) inFields(header []byte, name, want string) bool {
	for n, field := range mime.Fields(header) {
		if strings.EqualFold(n, name) && strings.Contains(fold(f.value(field)), want) {
			return true
		}
	}
	return false
}

// value returns a field's value with its encoded words decoded (RFC 2047).
func (f *finder) value(field []byte) string {
	value := mime.Value(field)
	text, err := f.words.DecodeHeader(value)
	if err != nil {
		return value
	}
	return text
}

// inPart reports whether a part has want in its text or in that of the parts inside it, with their
// headers; in its own header only if asked. Attachments have no text, but for their headers.
func (f *finder) inPart(r io.ReaderAt, p *mime.Part, want string, withHeader bool) (bool, error) {
	if want == "" {
		return true, nil
	}
	if withHeader {
		if found, err := f.inHeader(r, p.Header, want); found || err != nil {
			return found, err
		}
	}
	if p.Message != nil {
		return f.inPart(r, p.Message, want, true)
	}
	for _, child := range p.Parts {
		if found, err := f.inPart(r, child, want, true); found || err != nil {
			return found, err
		}
	}
	if p.Type != "text" && p.Type != "message" {
		return false, nil
	}
	return f.inBody(r, p, want)
}

func (f *finder) inHeader(r io.ReaderAt, span mime.Span, want string) (bool, error) {
	header, err := readHeader(r, span, maxHeaderBytes)
	if err != nil {
		return false, err
	}
	for name, field := range mime.Fields(header) {
		if strings.Contains(fold(name+": "+f.value(field)), want) {
			return true, nil
		}
	}
	return false, nil
}

func (f *finder) inBody(r io.ReaderAt, p *mime.Part, want string) (bool, error) {
	if err := f.budget.spend(decoderCost); err != nil {
		return false, err
	}
	body := &source{Reader: io.NewSectionReader(r, p.Body.From, p.Body.Len())}
	f.raw.Reset(body)
	found, err := f.contains(decode(p, f.raw), want)
	if body.err != nil {
		return false, fmt.Errorf("read part: %w", body.err)
	}
	if found || err == nil {
		return found, nil
	}
	// The encoding is broken: the text may be behind the break, or not be encoded at all.
	return f.contains(io.NewSectionReader(r, p.Body.From, p.Body.Len()), want)
}

// source keeps the error of reading, which decoders would mix with their own.
type source struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err // decoders compare io.EOF
}

// decode returns the text of a part's body.
func decode(p *mime.Part, body io.Reader) io.Reader {
	var h message.Header
	encoding, _ := mime.Params(p.Field("transfer-encoding")) // without comments
	h.Set("Content-Transfer-Encoding", encoding)
	if name := p.Params["charset"]; name != "" {
		h.SetContentType("text/plain", map[string]string{"charset": name})
	}
	entity, _ := message.New(h, body) // its errors are unknown encodings and charsets: not decoded then
	return entity.Body
}

// contains compares text in pieces that overlap by the length of want.
func (f *finder) contains(r io.Reader, want string) (bool, error) {
	folded := transform.NewReader(r, cases.Fold())
	overlap := max(len(want)-1, 0)
	if len(f.piece) < pieceBytes+overlap {
		f.piece = make([]byte, pieceBytes+overlap)
	}
	for kept := 0; ; {
		n, err := fill(folded, f.piece[kept:])
		text := f.piece[:kept+n]
		switch {
		case bytes.Contains(text, []byte(want)):
			return true, nil
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, err
		}
		kept = copy(f.piece, text[len(text)-min(overlap, len(text)):])
	}
}

// fill reads until p is full or r fails. Unlike io.ReadFull it keeps the error: decoders have
// io.ErrUnexpectedEOF for text that is cut.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}
