package relay

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// Whatever a message, an address and a reply have in them, the report has the three parts of RFC 3464, one
// group for each recipient with the fields it was made with, and lines that SMTP can carry.
func FuzzReport(f *testing.F) {
	f.Add("x@y.example", "no such user", []byte("Subject: a\r\n b\r\n\r\nbody"), false)
	f.Add("é@y.example", "a\r\n\r\n--=_06h2dbivghhu1ipq02h6qf0000--\r\n", []byte("--=_06h2dbivghhu1ipq02h6qf0000--\r\nX: y"), true)
	f.Add(`"a b"@y.example`, strings.Repeat("y", 2000), []byte(strings.Repeat("X", 3000)+": y\n\x00\xff\n"), false)
	f.Fuzz(func(t *testing.T, rcpt, said string, header []byte, delayed bool) {
		if checkAddress(rcpt, true) != nil || len(header) > maxQuotedBytes {
			return
		}
		now := time.Now()
		r := report{
			host: us, to: "app@blog." + us, queueID: "06h2dbivghhu1ipq02h6qf0000", delayed: delayed, now: now, arrived: now, giveUp: now, header: header,
			about: []outcome{{rcpt, &failure{permanent: !delayed, status: "5.1.1", host: "mx.example", text: clean(said), reply: true}}},
		}
		body := r.body()
		for line := range bytes.SplitAfterSeq(body, []byte("\r\n")) {
			if len(line) > maxLineBytes+2 || bytes.ContainsAny(bytes.TrimSuffix(line, []byte("\r\n")), "\r\n\x00") {
				t.Fatalf("line %q", line)
			}
		}
		parts := partsOf(t, body)
		if len(parts) != 3 {
			t.Fatalf("%d parts in\n%s", len(parts), body)
		}
		groups := strings.Split(strings.TrimSpace(strings.ReplaceAll(parts[1], "\r\n", "\n")), "\n\n")
		if len(groups) != 2 {
			t.Fatalf("%d groups in\n%s", len(groups), parts[1])
		}
		fields, err := mail.ReadMessage(strings.NewReader(groups[1] + "\n\n"))
		want := map[bool]string{true: "delayed", false: "failed"}[delayed]
		if err != nil || fields.Header.Get("Action") != want || fields.Header.Get("Diagnostic-Code") != strings.TrimSpace("smtp; "+clean(said)) {
			t.Errorf("%v: %q", err, groups[1])
		}
	})
}

// partsOf reads a report as a mail program does.
func partsOf(t *testing.T, body []byte) (parts []string) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatal(kind, params, err)
	}
	types := []string{"text/plain", "message/delivery-status", "text/rfc822-headers"}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if err == io.EOF { //nolint:errorlint // as documented
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		if kind, _, _ := mime.ParseMediaType(textproto.MIMEHeader(part.Header).Get("Content-Type")); len(parts) >= len(types) || kind != types[len(parts)] {
			t.Errorf("part %d is %s", len(parts), kind)
		}
		text, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, string(text))
	}
}

func TestAddressType(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"x+y@z.example": "rfc822; x+y@z.example", "é+@z.example": `utf-8; \x{E9}\x{2B}@z.example`,
	} {
		if got := addressType(address); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}
