package imapd

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/encoding/htmlindex"

	"lodge/gateway/gatewaytest"
	"lodge/mail/mime"
)

// find searches a message with a fresh finder.
func find(t *testing.T, message, want string) bool {
	t.Helper()
	r := strings.NewReader(message)
	root, err := mime.Walk(r, r.Size())
	gatewaytest.Must(t, err)
	found, err := newFinder(&budget{maxSearched}).inPart(r, root, fold(want), false)
	gatewaytest.Must(t, err)
	return found
}

// A string is found wherever it lies in the pieces that text is compared in, and in those that it is
// read in.
func TestFinderBorders(t *testing.T) {
	const want = "n€€dle"
	f := newFinder(&budget{maxSearched})
	for _, border := range []int{4 << 10, pieceBytes, 2 * pieceBytes, 2*pieceBytes + len(want)} {
		for before := border - len(want) - 1; before <= border+1; before++ {
			text := strings.Repeat("x", before) + want + "y"
			for name, r := range map[string]io.Reader{"pieces": strings.NewReader(text), "halves": iotest.HalfReader(strings.NewReader(text))} {
				if found, err := f.contains(r, want); !found || err != nil {
					t.Errorf("behind %d bytes, in %s: %v, %v", before, name, found, err)
				}
			}
		}
	}
	if found, err := f.contains(strings.NewReader(strings.Repeat("n€€dl", pieceBytes)), want); found || err != nil {
		t.Errorf("a string that is not there: %v, %v", found, err)
	}
}

// However long a part is, the finder holds one piece of it.
func TestFinderHoldsOnePiece(t *testing.T) {
	f := newFinder(&budget{maxSearched})
	if _, err := f.contains(io.LimitReader(endless{}, 4<<20), "needle"); err != nil || len(f.piece) > 2*pieceBytes {
		t.Errorf("holds %d bytes, error %v", len(f.piece), err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A disk that fails is no broken encoding.
func TestFinderReadError(t *testing.T) {
	const message = "Content-Transfer-Encoding: base64\r\n\r\nAAAA"
	root, err := mime.Walk(strings.NewReader(message), int64(len(message)))
	gatewaytest.Must(t, err)
	if _, err := newFinder(&budget{maxSearched}).inPart(broken{}, root, "x", false); !errors.Is(err, errBroken) {
		t.Errorf("error %v, want %v", err, errBroken)
	}
}

var errBroken = errors.New("broken disk")

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errBroken }

// The data of attachments is not searched.
func TestFinderSkipsAttachments(t *testing.T) {
	for kind, want := range map[string]bool{"text/csv": true, "application/pdf": false, "image/png": false} {
		if find(t, "Content-Type: "+kind+"\r\n\r\nneedle", "needle") != want {
			t.Errorf("%s: searched is %v", kind, !want)
		}
	}
}

// Any bytes: no panic, and no error but those of reading.
func FuzzFinder(f *testing.F) {
	f.Add("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n\r\nQQ=\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: =?x?b?=?=\r\n", "a")
	f.Add("Content-Type: text/plain; charset=iso-2022-jp\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=1B$B=\r\n=3", "\xff")
	f.Fuzz(func(t *testing.T, message, want string) { find(t, message, want) })
}

// A string in a text part is found, whatever the encoding, the charset and the part's place are.
func FuzzNeedle(f *testing.F) {
	f.Add("needle", uint16(4090), uint8(0), uint8(0), uint8(0))
	f.Add("Straße", uint16(76), uint8(1), uint8(1), uint8(1))
	f.Add("日本語", uint16(10), uint8(2), uint8(2), uint8(2))
	f.Add("ΌΣΟΣ", uint16(65533), uint8(1), uint8(3), uint8(0))
	f.Fuzz(func(t *testing.T, needle string, pad uint16, encoding, charset, place uint8) {
		if !utf8.ValidString(needle) || strings.ContainsFunc(needle, unicode.IsControl) {
			return
		}
		names := []string{"utf-8", "windows-1252", "iso-2022-jp", "utf-16le", "shift_jis", "gb18030", "koi8-r"}
		name := names[int(charset)%len(names)]
		body, ok := inCharset(name, strings.Repeat("x", int(pad)+1)+needle)
		if !ok {
			return // the charset does not have it
		}
		part := "Content-Type: text/plain; charset=" + name + "\r\n" + transferred(int(encoding), body)
		message := []string{
			part,
			"Content-Type: multipart/mixed; boundary=the-border\r\n\r\n--the-border\r\n\r\nx\r\n--the-border\r\n" + part + "\r\n--the-border--\r\n",
			"Content-Type: message/rfc822\r\n\r\n" + part,
		}[int(place)%3]
		if !find(t, message, needle) {
			t.Errorf("%q is not found in %q", needle, message)
		}
	})
}

// inCharset encodes text; ok is false if that loses something.
func inCharset(name, text string) (string, bool) {
	charset, err := htmlindex.Get(name)
	if err != nil {
		return "", false
	}
	encoded, err := charset.NewEncoder().String(text)
	if err != nil {
		return "", false
	}
	decoded, err := charset.NewDecoder().String(encoded)
	return encoded, err == nil && decoded == text
}

// transferred returns the rest of a part's header, and its body in one of the transfer encodings.
func transferred(n int, body string) string {
	const field = "Content-Transfer-Encoding: "
	var out bytes.Buffer
	switch {
	case n%3 == 1:
		out.WriteString(field + "base64\r\n\r\n")
		for text := base64.StdEncoding.EncodeToString([]byte(body)); text != ""; {
			line := text[:min(76, len(text))]
			out.WriteString(line + "\r\n")
			text = text[len(line):]
		}
	case n%3 == 2 || strings.ContainsAny(body, "\r\n"): // no text that would be cut at a line
		out.WriteString(field + "quoted-printable\r\n\r\n")
		w := quotedprintable.NewWriter(&out)
		w.Binary = true
		_, _ = io.WriteString(w, body) // a buffer
		_ = w.Close()
	default:
		out.WriteString(field + "8bit\r\n\r\n" + body)
	}
	return out.String()
}
