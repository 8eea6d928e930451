package imapd

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lodge/gateway/gatewaytest"
	"lodge/mail/mime"
)

// described is a part as BODYSTRUCTURE and as Python's email package describe it.
type described struct {
	Type        string            `json:"type"`
	Params      map[string]string `json:"params"`
	Encoding    string            `json:"encoding"`
	ID          string            `json:"id"`
	Description string            `json:"description"`
	Disposition string            `json:"disposition"`
	Named       map[string]string `json:"named"` // the parameters of the disposition
	Octets      int               `json:"octets"`
	Lines       int               `json:"lines"`
	Subject     string            `json:"subject"` // of a message in a message
	Parts       []described       `json:"parts"`   // of a multipart, or the message in a message
}

// describe reads the messages that its arguments name, and writes a list of them.
const describe = `import email, json, sys
def params(part, name):
    pairs = part.get_params(failobj=[], header=name, unquote=True)
    return {k.lower(): v for k, v in pairs[1:]}
def describe(part):
    d = {"type": part.get_content_type(), "params": params(part, "content-type")}
    if d["type"] == "text/plain" and "content-type" not in part:
        d["params"] = {"charset": "us-ascii"}  # RFC 2045, section 5.2
    if part.get_content_maintype() != "multipart":
        for key, name in ("encoding", "transfer-encoding"), ("id", "id"), ("description", "description"):
            d[key] = part.get("content-" + name, "").strip()
    d["disposition"] = part.get_content_disposition() or ""
    d["named"] = params(part, "content-disposition")
    if part.is_multipart():
        d["parts"] = [describe(p) for p in part.get_payload()]
        if part.get_content_maintype() == "message":
            d["subject"] = part.get_payload(0)["subject"]
    else:
        body = part._payload.encode("ascii", "surrogateescape")  # get_payload replaces bytes
        d["octets"] = len(body)
        if part.get_content_maintype() == "text": d["lines"] = body.count(b"\n")
    return d
print(json.dumps([describe(email.message_from_bytes(open(name, "rb").read())) for name in sys.argv[1:]]))
`

// Ordinary mails have the parts that Python's email package finds.
func TestStructureIsThatOfPython(t *testing.T) {
	dir := t.TempDir()
	const messages = 300
	random := letters{rand.New(rand.NewPCG(3501, 2045))}
	args := []string{"-c", describe}
	var texts []string
	for i := range messages {
		text := "From: a@example.com\r\nSubject: " + random.word() + "\r\nMIME-Version: 1.0\r\n" + random.entity(3)
		texts = append(texts, text)
		name := filepath.Join(dir, fmt.Sprint(i))
		gatewaytest.Must(t, os.WriteFile(name, []byte(text), 0o600))
		args = append(args, name)
	}
	out, err := exec.CommandContext(t.Context(), "python3", args...).Output()
	gatewaytest.Must(t, err)
	var want []described
	gatewaytest.Must(t, json.Unmarshal(out, &want))
	kinds := map[string]int{}
	for i, text := range texts {
		root, err := mime.Walk(strings.NewReader(text), int64(len(text)))
		gatewaytest.Must(t, err)
		got := describedBy(structure(strings.NewReader(text), root), kinds)
		if diff := cmp.Diff(want[i], got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s\nPython (-) and BODYSTRUCTURE (+) differ: %s", text, diff)
		}
	}
	for _, kind := range []string{"multipart/mixed", "multipart/digest", "message/rfc822", "text/html", "application/pdf"} {
		if kinds[kind] < 20 {
			t.Errorf("only %d of %s were compared", kinds[kind], kind)
		}
	}
}

// describedBy counts the types.
func describedBy(s imap.BodyStructure, kinds map[string]int) described {
	d := described{Type: s.MediaType()}
	kinds[d.Type]++
	if disposition := s.Disposition(); disposition != nil {
		d.Disposition, d.Named = disposition.Value, disposition.Params
	}
	switch s := s.(type) {
	case *imap.BodyStructureMultiPart:
		d.Params = s.Extended.Params
		for _, child := range s.Children {
			d.Parts = append(d.Parts, describedBy(child, kinds))
		}
	case *imap.BodyStructureSinglePart:
		d.Params, d.Encoding, d.ID, d.Description = s.Params, s.Encoding, s.ID, s.Description
		if inner := s.MessageRFC822; inner != nil {
			d.Subject, d.Parts = inner.Envelope.Subject, []described{describedBy(inner.BodyStructure, kinds)}
			break // Python has no octets of it
		}
		d.Octets = int(s.Size)
		if s.Text != nil {
			d.Lines = int(s.Text.NumLines)
		}
	}
	return d
}

// letters makes ordinary mail.
type letters struct{ *rand.Rand }

func (l letters) one(of ...string) string { return of[l.IntN(len(of))] }

func (l letters) word() string {
	return l.one("report", "lunch", "invoice", "Re: notes", "a-b_c", "x") + fmt.Sprint(l.IntN(1000))
}

// entity returns the Content- fields, the empty line and the body; deeper is how many multiparts and
// messages may lie in each other.
func (l letters) entity(deeper int) string {
	if deeper == 0 || l.IntN(3) == 0 {
		return l.leaf()
	}
	if l.IntN(4) == 0 {
		return "Content-Type: message/rfc822\r\n" + l.fields() + "\r\nSubject: " + l.word() + "\r\n" + l.entity(deeper-1)
	}
	kind, boundary := l.one("mixed", "alternative", "related", "digest"), fmt.Sprintf("=_%d_%s", deeper, l.one("a.b", "c'd", "e+f"))
	var s strings.Builder
	s.WriteString("Content-Type: multipart/" + kind + l.one("; ", ";\r\n\t") + "boundary=\"" + boundary + "\"\r\n" + l.fields() + "\r\n")
	s.WriteString(l.one("", "This is a message in MIME format.\r\n", "\r\n"))
	for range 1 + l.IntN(3) {
		part := l.entity(deeper - 1)
		if kind == "digest" {
			part = "\r\nSubject: " + l.word() + "\r\n" + part
		}
		s.WriteString("--" + boundary + l.one("", " ") + "\r\n" + part + "\r\n")
	}
	s.WriteString("--" + boundary + "--\r\n" + l.one("", "the end\r\n"))
	return s.String()
}

func (l letters) leaf() string {
	switch l.IntN(4) {
	case 0:
		return l.fields() + "\r\n" + l.lines() // text/plain by default
	case 1:
		name := l.one("a.pdf", `"two words.pdf"`, `"semi;colon.pdf"`)
		return "Content-Type: application/pdf; name=" + name + "\r\nContent-Transfer-Encoding: base64\r\n" +
			"Content-Disposition: attachment;\r\n filename=" + name + "\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(l.lines()))
	default:
		return "Content-Type: text/" + l.one("plain", "html", "HTML") + l.one("", "; charset=utf-8", "; charset=\"us-ascii\"; format=flowed", ";\r\n charset=utf-8") + "\r\n" +
			"Content-Transfer-Encoding: " + l.one("7bit", "quoted-printable", "8bit") + "\r\n" + l.fields() + "\r\n" + l.lines()
	}
}

func (l letters) fields() string {
	return l.one("", "Content-ID: <1@example.com>\r\n") + l.one("", "Content-Description: "+l.word()+"\r\n") + l.one("", "Content-Disposition: inline\r\n")
}

func (l letters) lines() string {
	var s strings.Builder
	for range l.IntN(6) {
		s.WriteString(l.one("", "hello", "grüß Gott", "-- ", "--not a border", " indented", "From here") + "\r\n")
	}
	return s.String() + l.one("", "no line end")
}
