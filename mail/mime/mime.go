// Package mime finds the parts of a message (RFC 2045, RFC 2046): where the header and the body of
// each one lie, and the Content- fields of its header.
//
// Walk reads the message once, line by line, and copies nothing but the Content- fields. Anybody
// can send a message, so nothing in it is an error: what does not parse is one opaque part. Depth,
// number of parts and bytes of kept header fields are bounded, whatever the message is. This package
// decodes nothing, and never writes.
package mime

const (
	maxDepth      = 50       // of open multiparts and messages, the outermost included
	maxParts      = 1000     // of a message; further delimiters belong to the part before them
	maxFieldBytes = 64 << 10 // of the Content- fields of one part; what is beyond is dropped
	maxHeadBytes  = 1 << 20  // of the Content- fields of all parts
	maxParams     = 100      // of one field
	lineBytes     = 64 << 10 // a longer line is no delimiter
	headerPiece   = 4 << 10  // read at once where only the header is of interest
)

// Span is a range of bytes in the message.
type Span struct {
	From, To int64 // To is behind the last byte
}

// Len returns the number of bytes.
func (s Span) Len() int64 { return s.To - s.From }

// Part is a message or one of its parts.
type Part struct {
	Header Span // with the empty line behind it, if there is one
	Body   Span // without the line end that belongs to the delimiter behind it (RFC 2046 §5.1.1)
	Lines  int64

	// Type and Subtype are in lower case. A "multipart" has Parts, and a "message" with the subtype
	// "rfc822" or "global" has a Message. A multipart in which no part was found is text/plain, the type
	// of a part whose own is invalid (RFC 2045 §5.2); either is application/octet-stream if it is too
	// deep to look into.
	Type, Subtype string
	Params        map[string]string // of Content-Type, by lower-case name
	Parts         []*Part
	Message       *Part

	fields map[string]string
}

// Field returns the value of the part's first field "Content-<name>" on one line, or "". The name is
// in lower case.
func (p *Part) Field(name string) string { return p.fields["content-"+name] }

// Held returns about how many bytes of memory the part holds, with those inside it.
func (p *Part) Held() int {
	const part = 512 // without the fields and parameters
	held := part
	for name, value := range p.fields {
		held += len(name) + len(value)
	}
	for name, value := range p.Params {
		held += len(name) + len(value)
	}
	for _, child := range p.Parts {
		held += child.Held()
	}
	if p.Message != nil {
		held += p.Message.Held()
	}
	return held
}

// Find returns the part that IMAP calls by path (RFC 3501 §6.4.5), nil if there is none: [2 1] is the
// first part of the second. The only part of a message that is no multipart is number 1. An empty
// path is the message itself.
func (p *Part) Find(path []int) *Part {
	for i, n := range path {
		if i > 0 && len(p.Parts) == 0 {
			if p = p.Message; p == nil {
				return nil
			}
		}
		switch {
		case 0 < n && n <= len(p.Parts):
			p = p.Parts[n-1]
		case n != 1 || len(p.Parts) > 0:
			return nil
		}
	}
	return p
}
