package submit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"regexp"
	"strings"
	"unicode"
)

// maxSubjectBytes of a subject fit one line of a header, which has 998 bytes (RFC 5322 §2.1.1).
const maxSubjectBytes = 900

// Letter is a message as a program writes it down.
type Letter struct {
	From      string    `json:"from,omitempty"` // one of the VM's addresses, with a name maybe; mail@<vm>.<domain> if it is left out
	To        addresses `json:"to"`             // each an address, with a name maybe: "Ada <ada@example.com>"
	Cc        addresses `json:"cc,omitempty"`
	Bcc       addresses `json:"bcc,omitempty"`
	ReplyTo   addresses `json:"reply_to,omitempty"`
	Subject   string    `json:"subject"`
	Text      string    `json:"text"`
	HTML      string    `json:"html,omitempty"`        // the same, for programs that show HTML
	InReplyTo string    `json:"in_reply_to,omitempty"` // a Message-ID with its brackets
}

// addresses are a list of strings in JSON, or one.
type addresses []string

// UnmarshalJSON implements json.Unmarshaler.
func (a *addresses) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = addresses{one}
		return nil
	}
	var list []string
	if err := json.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("expected an address or a list of these: %w", err)
	}
	*a = list
	return nil
}

var messageID = regexp.MustCompile(`^<[!-;=?-~]{1,250}@[!-;=?-~]{1,250}>$`)

// compose returns the letter as a message, without From, Date and Message-ID if it has none, and its
// recipients. Nothing of it can add a header.
func (l Letter) compose(host, name string) (text []byte, to []*mail.Address, err error) {
	if l.From == "" {
		l.From = name + " <mail@" + host + ">"
	}
	var b bytes.Buffer
	for _, f := range []struct {
		name, field string
		list        addresses
	}{{"From", "from", addresses{l.From}}, {"To", "to", l.To}, {"Cc", "cc", l.Cc}, {"", "bcc", l.Bcc}, {"Reply-To", "reply_to", l.ReplyTo}} {
		list, err := f.list.parse(f.field)
		if err != nil {
			return nil, nil, err
		}
		if f.name != "" && len(list) > 0 {
			fmt.Fprintf(&b, "%s: %s\r\n", f.name, joinAddresses(list))
		}
		if f.field != "from" && f.field != "reply_to" {
			to = append(to, list...)
		}
	}
	if err := l.check(); err != nil {
		return nil, nil, err
	}
	fmt.Fprintf(&b, "Subject: %s\r\n", strings.ReplaceAll(mime.QEncoding.Encode("utf-8", l.Subject), "?= =?", "?=\r\n =?"))
	if l.InReplyTo != "" {
		fmt.Fprintf(&b, "In-Reply-To: %[1]s\r\nReferences: %[1]s\r\n", l.InReplyTo)
	}
	b.WriteString("MIME-Version: 1.0\r\n")
	l.writeBody(&b)
	return b.Bytes(), to, nil
}

// check refuses what no header or text can have.
func (l Letter) check() error {
	switch {
	case strings.ContainsFunc(l.Subject, unicode.IsControl):
		return invalid("the subject has a control character, such as a line end")
	case len(l.Subject) > maxSubjectBytes:
		return invalid("the subject has %d bytes; at most %d are possible", len(l.Subject), maxSubjectBytes)
	case l.InReplyTo != "" && !messageID.MatchString(l.InReplyTo):
		return invalid("in_reply_to must be a Message-ID, such as <abc@example.com>")
	case strings.ContainsRune(l.Text+l.HTML, 0):
		return invalid("the text has a NUL byte")
	case l.Text == "" && l.HTML == "":
		return invalid("there is no text")
	}
	return nil
}

// parse reads addresses, each string of which has one or more.
func (a addresses) parse(field string) (all []*mail.Address, err error) {
	for _, text := range a {
		if strings.ContainsFunc(text, unicode.IsControl) {
			return nil, invalid("%s has a control character, such as a line end", field)
		}
		list, err := parseAddresses(text)
		if err != nil {
			return nil, invalid("%s has no mail address: %.200q; an address is like ada@example.com", field, text)
		}
		all = append(all, list...)
	}
	return all, nil
}

// writeBody writes the rest of the header and the text: as multipart/alternative if there is HTML too.
func (l Letter) writeBody(b *bytes.Buffer) {
	const encoding = "quoted-printable"
	write := func(to interface{ Write([]byte) (int, error) }, text string) {
		q := quotedprintable.NewWriter(to)
		_, _ = q.Write([]byte(text)) // a bytes.Buffer takes all
		_ = q.Close()                // as above
	}
	if l.HTML == "" {
		b.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: " + encoding + "\r\n\r\n")
		write(b, l.Text)
		return
	}
	parts := multipart.NewWriter(b)
	fmt.Fprintf(b, "Content-Type: multipart/alternative; boundary=%s\r\n\r\n", parts.Boundary())
	for _, part := range []struct{ kind, text string }{{"plain", l.Text}, {"html", l.HTML}} {
		if part.text == "" {
			continue
		}
		w, err := parts.CreatePart(textproto.MIMEHeader{
			"Content-Type": {"text/" + part.kind + "; charset=utf-8"}, "Content-Transfer-Encoding": {encoding},
		})
		if err != nil {
			return // a bytes.Buffer takes all
		}
		write(w, part.text)
	}
	_ = parts.Close() // as above
}

// headerOf returns the header of a message that compose has made.
func headerOf(text []byte) []byte {
	header, _, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	return append(header[:len(header):len(header)], "\r\n"...)
}
