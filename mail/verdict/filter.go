package verdict

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"
)

const (
	maxField   = 4 << 10  // bytes of a field that are looked at
	maxRemoved = 64 << 10 // bytes of all fields that are removed
)

// Refused is an error about a message's header. Its text is for the sender.
type Refused string

// Error implements error.
func (r Refused) Error() string { return string(r) }

// Header is what a Filter has seen of a header.
type Header struct {
	// From is the domain of the From header, as in a Verdict. It is empty if there is no such header, if
	// it has addresses of several domains, or none that can be read.
	From       string
	Author     string // the address in the From header, if it is the only one and could be read
	signatures int    // DKIM-Signature headers
	signed     int    // bytes of the first maxSignatures of them
	fields     int    // longer ones counted once per KiB
	bytes      int
	folded     int // what it takes to append each line of a field to those before it, in bytes
}

// Filter passes a message on and removes the headers that only this host may write: Delivered-To,
// Return-Path, X-Spam, X-Lodge-*, and Authentication-Results in its name or that of a domain below,
// or in one that cannot be read. Lines in front of the first header that would continue one above
// are removed too.
// All else is passed on as it is. A Filter is for one message; make it with NewFilter.
//
// It takes a field for what DKIM's library takes it for: that decides what is signed.
type Filter struct {
	out        io.Writer
	authservID string

	header  Header
	from    []byte // value of the From header
	froms   int
	kept    []byte // not yet written
	written int64
	removed []removed
	bytes   int // of removed

	start  bool // a line begins
	cr     bool // with a CR, of which no more is known
	inBody bool
	field  []byte // its first bytes, maxField at most
	size   int    // of the field
	state  state  // of the field
}

// removed is a piece that was removed in front of offset at of what was written.
type removed struct {
	at   int64
	text []byte
}

type state int

const (
	undecided state = iota
	keep
	remove
)

// NewFilter returns a Filter that writes to out.
func NewFilter(out io.Writer, authservID string) *Filter {
	return &Filter{out: out, authservID: strings.ToLower(authservID), start: true}
}

// Write implements io.Writer. It fails with Refused if more than 64 KiB would have to be removed.
func (f *Filter) Write(p []byte) (int, error) {
	all := len(p)
	for !f.inBody && len(p) > 0 {
		line := p[:cmp.Or(bytes.IndexByte(p, '\n')+1, len(p))]
		f.add(line)
		p = p[len(line):]
	}
	if f.bytes > maxRemoved {
		return 0, refusedRemoved()
	}
	if err := f.flush(p); err != nil {
		return 0, err
	}
	return all, nil
}

func refusedRemoved() Refused {
	return Refused(fmt.Sprintf("More than %d bytes of headers that only this server may write", maxRemoved))
}

// flush writes what is kept, then p, at once.
func (f *Filter) flush(p []byte) error {
	if len(f.kept) > 0 {
		p = append(f.kept, p...)
		f.kept = nil
	}
	if len(p) == 0 {
		return nil
	}
	if _, err := f.out.Write(p); err != nil {
		return err //nolint:wrapcheck // an io.Writer's
	}
	f.written += int64(len(p))
	return nil
}

// add adds a piece of the header, of one line at most.
func (f *Filter) add(p []byte) {
	if f.cr {
		p, f.cr = append([]byte("\r"), p...), false
	}
	if f.start && string(p) == "\r" {
		f.cr = true // an empty line, if a LF follows
		return
	}
	empty := f.start && (string(p) == "\r\n" || string(p) == "\n")
	if f.start {
		if empty || p[0] != ' ' && p[0] != '\t' {
			f.endField()
		}
		f.header.folded += f.size
	}
	f.header.bytes += len(p)
	if empty {
		f.inBody = true
		f.kept = append(f.kept, p...)
		return
	}
	f.start = p[len(p)-1] == '\n'
	f.size += len(p)
	if f.state == undecided {
		room := min(len(p), maxField-len(f.field))
		f.field = append(f.field, p[:room]...)
		if len(f.field) < maxField {
			return
		}
		f.choose()
		p = p[room:]
	}
	f.put(p)
}

// choose decides on the field.
func (f *Filter) choose() {
	f.state = keep
	if f.ours(f.field) {
		f.state = remove
	}
	f.put(f.field)
}

// put keeps or removes a piece of the field.
func (f *Filter) put(p []byte) {
	if f.state == keep {
		f.kept = append(f.kept, p...)
		return
	}
	if f.bytes += len(p); f.bytes > maxRemoved {
		return // the message will be refused
	}
	at := f.written + int64(len(f.kept))
	if last := len(f.removed) - 1; last >= 0 && f.removed[last].at == at {
		f.removed[last].text = append(f.removed[last].text, p...)
		return
	}
	f.removed = append(f.removed, removed{at, bytes.Clone(p)})
}

// endField ends a field, of which the next line is not a part.
func (f *Filter) endField() {
	if f.size == 0 {
		return
	}
	if f.state == undecided {
		f.choose()
	}
	f.header.fields += 1 + f.size>>10
	switch name, value := split(f.field); {
	case strings.EqualFold(name, "From"):
		f.froms++
		if f.size == len(f.field) { // else it is too large to be read
			f.from = bytes.Clone(value)
		}
	case strings.EqualFold(name, "DKIM-Signature"):
		if f.header.signatures++; f.header.signatures <= maxSignatures {
			f.header.signed += f.size
		}
	}
	f.field, f.size, f.state = f.field[:0], 0, undecided
}

// End ends the message: call it after the last Write. It fails with Refused as Write does, for the last
// field of a message without a body; and if the message has more than one From header: programs show one,
// and may check another.
func (f *Filter) End() (Header, error) {
	if !f.inBody {
		f.endField()
		if f.cr {
			f.start = false // without a LF it is no empty line
			f.add(nil)
			f.endField()
		}
	}
	if f.bytes > maxRemoved {
		return f.header, refusedRemoved()
	}
	if err := f.flush(nil); err != nil {
		return f.header, err
	}
	if f.froms > 1 {
		return f.header, Refused("The message has more than one From header (RFC 5322 section 3.6)")
	}
	f.header.From, f.header.Author = author(f.from)
	return f.header, nil
}

// Size is how many bytes were written.
func (f *Filter) Size() int64 { return f.written }

// OriginalSize is how many bytes Original reads.
func (f *Filter) OriginalSize() int64 {
	size := f.written + int64(f.bytes)
	if !f.inBody {
		size += int64(len("\r\n"))
	}
	return size
}

// Original reads the message as it came in, which is what was signed, from what was written. A message
// that ends in its header ends in an empty line.
func (f *Filter) Original(stored io.ReaderAt) io.Reader {
	var all []io.Reader
	at := int64(0)
	for _, r := range f.removed {
		all = append(all, io.NewSectionReader(stored, at, r.at-at), bytes.NewReader(r.text))
		at = r.at
	}
	all = append(all, io.NewSectionReader(stored, at, f.written-at))
	if !f.inBody {
		all = append(all, strings.NewReader("\r\n"))
	}
	return io.MultiReader(all...)
}
