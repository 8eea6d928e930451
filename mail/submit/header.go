package submit

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/mail/smtpd"
)

const (
	maxHeaderBytes = 256 << 10
	maxReceived    = 50 // as smtpd has it
)

// splitter holds a message back until its header has ended. It ends at an empty line, or in front of a line
// that is no header: programs pipe plain text into sendmail(8).
type splitter struct {
	text []byte // the header so far
	line int    // where its last line begins, which may be incomplete
	done bool
}

// Write takes a piece of a message, and returns what is behind the header. A header that is too large is
// refused.
func (s *splitter) write(p []byte) (rest []byte, err error) {
	if s.done {
		return p, nil
	}
	s.text = append(s.text, p...)
	for {
		end := bytes.IndexByte(s.text[s.line:], '\n')
		if end < 0 {
			if len(s.text) > maxHeaderBytes {
				return nil, replyHeader(fmt.Sprintf("it is longer than %d KiB", maxHeaderBytes>>10))
			}
			return nil, nil
		}
		line := s.text[s.line : s.line+end+1]
		if s.line == 0 && bytes.HasPrefix(line, []byte("From ")) && !s.belongs(line) { // of an mbox
			s.text = s.text[end+1:]
			continue
		}
		if !s.belongs(line) {
			s.done = true
			rest = bytes.TrimPrefix(s.text[s.line:], []byte("\r\n"))
			s.text = s.text[:s.line]
			return rest, nil
		}
		s.line += end + 1
	}
}

// end ends a message that has nothing behind its header, and returns its last line if that is none of it.
func (s *splitter) end() (rest []byte) {
	if s.done {
		return nil
	}
	s.done = true
	if last := s.text[s.line:]; len(last) > 0 && !s.belongs(last) {
		s.text = s.text[:s.line]
		return last
	}
	return nil
}

// belongs reports whether a line is a part of the header: a field, or a continuation of one.
func (s *splitter) belongs(line []byte) bool {
	if line[0] == ' ' || line[0] == '\t' {
		return s.line > 0
	}
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t") // RFC 5322 §4.5
	return ok && len(name) > 0 && bytes.IndexFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
}

// field is one of a header, with its line ends.
type field struct {
	name string // in lower case
	text []byte
}

// value is the text behind the name, with the line ends.
func (f field) value() string {
	_, value, _ := bytes.Cut(f.text, []byte(":"))
	return string(value)
}

// fields takes a header apart, each line of which splitter.belongs to it. Fields share its bytes.
func fields(header []byte) (all []field) {
	begin := 0 // of the last field
	for at := 0; at < len(header); {
		end := len(header)
		if i := bytes.IndexByte(header[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if folded := header[at] == ' ' || header[at] == '\t'; !folded || len(all) == 0 {
			name, _, _ := bytes.Cut(header[at:end], []byte(":"))
			begin, all = at, append(all, field{name: strings.ToLower(string(bytes.TrimRight(name, " \t")))})
		}
		all[len(all)-1].text, at = header[begin:end:end], end
	}
	return all
}

// rewriting is what a header is completed with.
type rewriting struct {
	vm   gateway.VM
	from smtpd.Path // of the envelope
	id   string     // in front of the @ of a Message-ID
	now  time.Time
}

// rewrite checks a header, and returns it as it goes out: without Bcc, with authors that are the VM's, with
// From, Date and Message-ID. All other fields stay as they are, byte for byte. verdict.Filter removes what
// only the host may write, and refuses a second From.
func (p *Policy) rewrite(header []byte, r rewriting) ([]byte, error) {
	if bytes.IndexByte(header, 0) >= 0 {
		return nil, replyHeader("it has a NUL byte")
	}
	var out bytes.Buffer
	has := map[string]bool{}
	received := 0
	for _, f := range fields(header) {
		if isBlank(f.text) {
			return nil, replyHeader("it has a line of spaces alone")
		}
		text, err := p.rewriteField(r.vm, f)
		if err != nil {
			return nil, err
		}
		if f.name == "received" {
			received++
		}
		has[f.name] = has[f.name] || len(text) > 0
		out.Write(text)
	}
	if received > maxReceived {
		return nil, smtpd.Reply{Code: 554, Status: "5.4.6", Text: "Too many hops: the message has more than 50 Received headers"}
	}
	if b := out.Bytes(); len(b) > 0 && b[len(b)-1] != '\n' {
		out.WriteString("\r\n")
	}
	if !has["from"] {
		from := r.from
		if from == (smtpd.Path{}) {
			from = smtpd.Path{Local: "MAILER-DAEMON", Domain: p.host(r.vm)}
		}
		fmt.Fprintf(&out, "From: <%s>\r\n", from)
	}
	if !has["date"] {
		fmt.Fprintf(&out, "Date: %s\r\n", r.now.Format(time.RFC1123Z))
	}
	if !has["message-id"] {
		fmt.Fprintf(&out, "Message-ID: <%s@%s>\r\n", r.id, p.host(r.vm))
	}
	return out.Bytes(), nil
}

// authorFields name who wrote a message. Programs show them, so they must be the VM's.
func isAuthorField(name string) bool {
	return slices.Contains([]string{"from", "sender", "resent-from", "resent-sender"}, name)
}

// rewriteField returns a field as it goes out; nothing if it is left out.
func (p *Policy) rewriteField(vm gateway.VM, f field) ([]byte, error) {
	value := unfold(f.value())
	switch {
	case f.name == "bcc", f.name == "resent-bcc":
		return nil, nil
	case value == "" && (f.name == "date" || f.name == "message-id" || isAuthorField(f.name)):
		return nil, nil // as good as none
	case !isAuthorField(f.name):
		return f.text, nil
	}
	name, _, _ := bytes.Cut(f.text, []byte(":"))
	text, err := p.authors(vm, string(bytes.TrimRight(name, " \t")), value)
	if err != nil || text == value {
		return f.text, err
	}
	return fmt.Appendf(nil, "%s: %s\r\n", name, text), nil
}

// isBlank reports whether a field has a line of white space, which some programs take for the end of the
// header.
func isBlank(text []byte) bool {
	for line := range bytes.SplitAfterSeq(text, []byte("\n")) {
		if len(line) > 0 && len(bytes.TrimSpace(line)) == 0 {
			return true
		}
	}
	return false
}

// unfold makes a value one line.
func unfold(value string) string {
	return strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(value))
}

func replyHeader(what string) error {
	return smtpd.Reply{Code: 554, Status: "5.6.0", Text: "The message's header cannot be sent: " + what + " (RFC 5322 section 2.2)"}
}

// anyCharset leaves a text in a charset that Go does not have as it is.
func anyCharset() *mime.WordDecoder {
	return &mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}
}
