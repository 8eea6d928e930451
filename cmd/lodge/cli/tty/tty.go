// Package tty makes text from strangers safe to show on a terminal: a guest's console, a mail's
// subject, an object's name.
//
// Escape sequences set a terminal's title, write the clipboard and move the cursor over other text.
// Line and Writer show every control character as cat -v and less do (^[, <U+009B>, <9b>), so that
// it has no effect. Writer passes what a log needs: CR, LF, TAB and SGR, the sequence that sets
// colours. Directional overrides of Unicode are shown, too, for they make a name look like another.
//
// The output is valid UTF-8. Nothing here protects a terminal that reads another encoding, where
// the second byte of a letter may be a control character.
package tty

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSGRBytes is the longest SGR sequence that passes; longer ones have no use.
const maxSGRBytes = 64

// sgrReset sets a terminal's colours back.
const sgrReset = "\x1b[0m"

// Line returns s as one line without any control character.
func Line(s string) string {
	var line strings.Builder
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		show(&line, r, s[:size])
		s = s[size:]
	}
	return line.String()
}

// show writes one character, in a visible form if it is a control character or no UTF-8.
func show(to *strings.Builder, r rune, raw string) {
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		fmt.Fprintf(to, "<%02x>", raw[0])
	case r < ' ' || r == 0x7f:
		to.WriteByte('^')
		to.WriteRune(r ^ 0x40)
	case unicode.IsControl(r), reorders(r):
		fmt.Fprintf(to, "<U+%04X>", r)
	default:
		to.WriteString(raw)
	}
}

// reorders reports whether r changes where other characters of the line are shown, or ends the
// line.
func reorders(r rune) bool {
	return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' || r == '\u2028' || r == '\u2029'
}

// Writer passes a stream on to a terminal. It holds back a sequence that may be continued by the
// next Write; Close ends it. It is not safe for concurrent use.
type Writer struct {
	to      io.Writer
	held    string // the start of a sequence: at most maxSGRBytes
	colored bool   // the last SGR sequence was not a reset
}

// NewWriter returns a Writer to a terminal.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.pass(w.held+string(p), false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes what was held back, and a reset where the stream left a colour set. It does not
// close the terminal.
func (w *Writer) Close() error {
	if err := w.pass(w.held, true); err != nil || !w.colored {
		return err
	}
	w.colored = false
	_, err := io.WriteString(w.to, sgrReset)
	return err
}

// pass writes in, up to a sequence that is not complete yet unless this is the end.
func (w *Writer) pass(in string, end bool) error {
	var out strings.Builder
	for in != "" {
		sequence, complete := sgr(in)
		if !complete && !end {
			break
		}
		if sequence != "" && complete {
			out.WriteString(sequence)
			w.colored = sequence != sgrReset && sequence != "\x1b[m"
			in = in[len(sequence):]
			continue
		}
		if !utf8.FullRuneInString(in) && !end {
			break
		}
		r, size := utf8.DecodeRuneInString(in)
		if r == '\r' || r == '\n' || r == '\t' {
			out.WriteRune(r)
		} else {
			show(&out, r, in[:size])
		}
		in = in[size:]
	}
	w.held = in
	_, err := io.WriteString(w.to, out.String())
	return err
}

// sgr returns the SGR sequence that s starts with: ESC [, digits with ; or : between them, m. It is
// "" where there is none; complete is false where more of s could make one.
func sgr(s string) (sequence string, complete bool) {
	for i := range min(len(s), maxSGRBytes) {
		c := s[i]
		switch {
		case i == 0 && c == '\x1b', i == 1 && c == '[', i > 1 && (c >= '0' && c <= '9' || c == ';' || c == ':'):
		case i > 1 && c == 'm':
			return s[:i+1], true
		default:
			return "", true
		}
	}
	return "", len(s) >= maxSGRBytes
}
