package mime

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

// HeaderLen returns the length of a message's header with the empty line behind it. It reads no
// further than that, and fails only if r does.
func HeaderLen(r io.ReaderAt, size int64) (int64, error) {
	w := walker{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), headerPiece)}
	for {
		switch err := w.next(); {
		case errors.Is(err, io.EOF):
			return w.at, nil
		case err != nil:
			return 0, err
		case w.blank():
			return w.end(), nil
		}
	}
}

// Walk returns the message in the first size bytes of r with all its parts. It fails only if r does.
func Walk(r io.ReaderAt, size int64) (*Part, error) {
	buffer := int(min(size+1, lineBytes)) // a small message fits, and its last line is seen to end
	w := walker{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), buffer)}
	root := w.push(0, nil)
	for {
		err := w.next()
		if errors.Is(err, io.EOF) {
			w.closeTo(0, false)
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		w.step()
	}
}

// walker is at one line of the message. A line longer than lineBytes comes in pieces.
type walker struct {
	r     *bufio.Reader
	line  []byte
	at    int64 // where line begins
	whole bool  // line is a line, from its begin
	lines int64 // line ends before at
	eol   int64 // length of the line end before at; 0 if there is none
	open  []*entity
	parts int
	kept  int // bytes of Content- fields
}

// entity is a part whose end is not found yet.
type entity struct {
	*Part
	parent   *entity
	inHeader bool
	keep     bool   // the field that is being read
	head     []byte // the Content- fields
	boundary string // of a multipart that is not ended
	begin    int64  // walker.lines where the body begins
}

// next moves to the next line. It returns io.EOF behind the last one.
func (w *walker) next() error {
	w.at, w.eol = w.end(), lineEnd(w.line)
	begins := w.eol > 0 || w.at == 0
	if w.eol > 0 {
		w.lines++
	}
	var err error
	w.line, err = w.r.ReadSlice('\n')
	w.whole = begins && !errors.Is(err, bufio.ErrBufferFull)
	switch {
	case err == nil, errors.Is(err, bufio.ErrBufferFull):
		return nil
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read message: %w", err)
	case len(w.line) > 0:
		return nil
	default:
		return io.EOF
	}
}

func (w *walker) end() int64 { return w.at + int64(len(w.line)) }

// lineEnd returns the length of the line end.
func lineEnd(line []byte) int64 {
	switch {
	case bytes.HasSuffix(line, []byte("\r\n")):
		return 2
	case bytes.HasSuffix(line, []byte("\n")):
		return 1
	default:
		return 0
	}
}

// blank reports whether the line ends a header.
func (w *walker) blank() bool {
	return w.whole && lineEnd(w.line) > 0 && len(bytes.TrimRight(w.line, "\r\n")) == 0
}

func (w *walker) step() {
	if i, last := w.delimiter(); i >= 0 {
		w.closeTo(i+1, true)
		if last {
			w.open[i].boundary = ""
			return
		}
		child := w.push(w.end(), w.open[i])
		w.open[i].Parts = append(w.open[i].Parts, child)
		return
	}
	e := w.open[len(w.open)-1]
	switch {
	case !e.inHeader:
	case w.blank():
		w.endHeader(e, w.end())
		e.begin++ // the empty line's own end
	default:
		w.field(e)
	}
}

// delimiter returns the open multipart whose delimiter the line is, -1 if there is none, and whether
// it is the last (RFC 2046 §5.1.1).
func (w *walker) delimiter() (index int, last bool) {
	if !w.whole || !bytes.HasPrefix(w.line, []byte("--")) {
		return -1, false
	}
	line := bytes.TrimRight(w.line[2:], " \t\r\n")
	for i, e := range slices.Backward(w.open) {
		boundary := e.boundary
		if boundary == "" || !bytes.HasPrefix(line, []byte(boundary)) {
			continue
		}
		switch string(line[len(boundary):]) {
		case "--":
			return i, true
		case "":
			if w.parts < maxParts {
				return i, false
			}
		}
	}
	return -1, false
}

func (w *walker) push(from int64, parent *entity) *Part {
	w.parts++
	e := &entity{Part: &Part{Header: Span{From: from}}, parent: parent, inHeader: true}
	w.open = append(w.open, e)
	return e.Part
}

// field keeps the line if it belongs to a Content- field.
func (w *walker) field(e *entity) {
	if w.eol > 0 && w.line[0] != ' ' && w.line[0] != '\t' || w.at == e.Header.From {
		const prefix = "content-"
		e.keep = len(w.line) > len(prefix) && bytes.EqualFold(w.line[:len(prefix)], []byte(prefix))
	}
	if e.keep && len(e.head)+len(w.line) <= maxFieldBytes && w.kept+len(w.line) <= maxHeadBytes {
		e.head = append(e.head, w.line...)
		w.kept += len(w.line)
	}
}

// endHeader reads the header of e, whose body begins at from.
func (w *walker) endHeader(e *entity, from int64) {
	e.inHeader, e.begin = false, w.lines
	e.Header.To, e.Body.From = from, from
	e.fields = map[string]string{}
	for name, field := range Fields(e.head) {
		name = string(bytes.ToLower([]byte(name)))
		if _, twice := e.fields[name]; !twice {
			e.fields[name] = Value(field)
		}
	}
	e.head = nil
	e.classify()
	switch {
	case e.Type == "multipart":
		if len(w.open) < maxDepth {
			e.boundary = e.Params["boundary"]
		} else {
			e.opaque()
		}
	case e.isMessage():
		if len(w.open) < maxDepth && w.parts < maxParts {
			e.Message = w.push(from, e)
		} else {
			e.opaque()
		}
	}
}

// classify sets the type from the header, or the default (RFC 2045 §5.2, RFC 2046 §5.1.5).
func (e *entity) classify() {
	value, ok := e.fields["content-type"]
	if ok {
		e.Type, e.Subtype, e.Params, ok = contentType(value)
	} else if e.parent != nil && e.parent.Type == "multipart" && e.parent.Subtype == "digest" {
		e.Type, e.Subtype, ok = "message", "rfc822", true
	}
	if !ok {
		e.plain()
	}
}

func (p *Part) isMessage() bool {
	return p.Type == "message" && (p.Subtype == "rfc822" || p.Subtype == "global")
}

func (p *Part) plain() {
	p.Type, p.Subtype, p.Params = "text", "plain", map[string]string{"charset": "us-ascii"}
}

func (p *Part) opaque() { p.Type, p.Subtype, p.Params = "application", "octet-stream", nil }

// closeTo ends the open entities but the first n, at a delimiter or at the end of the message.
func (w *walker) closeTo(n int, delimiter bool) {
	end, trimmed := w.at, int64(0)
	if delimiter {
		end, trimmed = w.at-w.eol, min(w.eol, 1) // the line end before a delimiter belongs to it
	}
	for len(w.open) > n {
		e := w.open[len(w.open)-1]
		if e.inHeader {
			w.endHeader(e, w.at) // without a body; it may open a message, which ends here too
			continue
		}
		e.close(end, w.lines-e.begin-trimmed)
		if e.Type == "multipart" && len(e.Parts) == 0 {
			e.plain()
		}
		w.open = w.open[:len(w.open)-1]
	}
}

// close ends the part at end, which may lie before the end of its header.
func (p *Part) close(end, lines int64) {
	p.Header = Span{min(p.Header.From, end), min(p.Header.To, end)}
	p.Body = Span{min(p.Body.From, end), end}
	p.Lines = max(lines, 0)
}
