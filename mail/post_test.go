package mail

import (
	"encoding/json"
	"io"
	"net/http"
	"net/mail"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/smtpd"
	"lodge/mail/submit"
)

// posting serves POST /lodge/v1/mail for a VM, and returns the address.
func (f *fixture) posting(tb testing.TB, vm gateway.Identity) (url string) {
	tb.Helper()
	l := listen(tb)
	server := &http.Server{Handler: f.Inside(), ConnContext: gateway.ConnContext} //nolint:gosec // its clients are tests
	go func() { _ = server.Serve(gatewaytest.Listener(l, vm)) }()                 // ends with Close
	tb.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String() + "/lodge/v1/mail"
}

func post(tb testing.TB, url, kind string, body io.Reader) (status int, header http.Header, answer string) {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, url, body)
	gatewaytest.Must(tb, err)
	r.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(r)
	gatewaytest.Must(tb, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	gatewaytest.Must(tb, err)
	return resp.StatusCode, resp.Header, string(text)
}

const (
	asJSON    = "application/json; charset=utf-8"
	asMessage = "message/rfc822"
)

// A letter in JSON arrives as a message with text and HTML, for recipients here and outside.
func TestPostLetter(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, nil)
	blog := f.add(t, "blog")
	status, _, answer := post(t, f.posting(t, blog), asJSON, strings.NewReader(`{
		"from": "Blög <me@blog.lodge.localhost>", "to": "Ann <ann@example.org>", "cc": ["root@localhost"], "bcc": ["z@blog.lodge.localhost"],
		"reply_to": ["any@example.net"], "subject": "Grüße, `+strings.Repeat("ü", 200)+`", "text": "Grüße\n.\nend\n", "html": "<p>Grüße</p>", "in_reply_to": "<a@b>"}`))
	var accepted submit.Accepted
	gatewaytest.Must(t, json.Unmarshal([]byte(answer), &accepted))
	list := f.list(t, blog)
	if status != http.StatusAccepted || len(list) != 2 || !slices.ContainsFunc(list, func(m gateway.Message) bool { return m.QueueID == accepted.ID }) {
		t.Fatalf("%d %s, %+v", status, answer, list)
	}
	sent := out.last(t)
	m, err := mail.ReadMessage(strings.NewReader(sent.text))
	gatewaytest.Must(t, err)
	for name, want := range map[string]string{
		"From": "=?utf-8?q?Bl=C3=B6g?= <me@blog.lodge.localhost>", "To": `"Ann" <ann@example.org>`, "Cc": "<root@localhost>", "Bcc": "",
		"Reply-To": "<any@example.net>", "In-Reply-To": "<a@b>", "References": "<a@b>", "Mime-Version": "1.0",
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !slices.Equal(sent.To, []string{"ann@example.org"}) || sent.From != "me@blog.lodge.localhost" || sent.UTF8 {
		t.Errorf("%+v", sent.Message)
	}
	if !strings.HasPrefix(list[0].Subject, "Grüße, üü") || !strings.Contains(sent.text, "Gr=C3=BC=C3=9Fe\r\n.\r\nend\r\n") || !strings.Contains(sent.text, "<p>Gr=C3=BC=C3=9Fe</p>") {
		t.Errorf("%q: %q", list[0].Subject, sent.text)
	}
	for line := range strings.SplitSeq(sent.text, "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("line %q", line)
		}
	}
}

// What cannot be sent gets a status and a reason, and nobody gets a part of it.
func TestPostRefuses(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, func(c *Config) { c.MaxMessageBytes = 2 << 20 })
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	url := f.posting(t, blog)
	long := strings.Repeat("x", 1<<20)
	for _, row := range []struct {
		kind, body string
		status     int
		text       string
	}{
		{asJSON, `{"to": "root@localhost", "subject": "a\r\nBcc: z@shop.lodge.localhost", "text": "x"}`, 400, "the subject has a control character"},
		{asJSON, `{"to": "root@localhost\r\nBcc: z@shop.lodge.localhost", "subject": "a", "text": "x"}`, 400, "to has a control character"},
		{asJSON, `{"to": "root@localhost", "from": "a@localhost\nX: y", "subject": "a", "text": "x"}`, 400, "from has a control character"},
		{asJSON, `{"to": "root@localhost", "reply_to": "a@b\u0000", "subject": "a", "text": "x"}`, 400, "reply_to has a control character"},
		{asJSON, `{"to": "root@localhost", "subject": "a", "text": "x", "in_reply_to": "<a@b>\r\nX: y"}`, 400, "in_reply_to must be a Message-ID"},
		{asJSON, `{"to": "root@localhost", "subject": "a", "text": "x\u0000"}`, 400, "the text has a NUL byte"},
		{asJSON, `{"to": "root@localhost", "subject": "` + long[:901] + `", "text": "x"}`, 400, "the subject has 901 bytes"},
		{asJSON, `{"to": "root@localhost", "subject": "a", "text": "` + long + `"}`, 413, "message/rfc822"},
		{asJSON, `{"to": "root@localhost", "subject": "a"}`, 400, "there is no text"},
		{asJSON, `{"subject": "a", "text": "x"}`, 400, "there is no recipient"},
		{asJSON, `{"to": "nobody", "subject": "a", "text": "x"}`, 400, "to has no mail address"},
		{asJSON, `{"to": 7, "subject": "a", "text": "x"}`, 400, "expected an address"},
		{asJSON, `{"too": "root@localhost"}`, 400, "unknown field"},
		{asJSON, `{"to": "root@localhost", "subject": "a", "text": "x"} {}`, 400, "there is more behind it"},
		{asJSON, `[`, 400, "the request is not as documented"},
		{asJSON, `{"to": ["` + strings.Repeat(`a@localhost","`, 100) + `a@localhost"], "subject": "a", "text": "x"}`, 400, "101 recipients"},
		{asJSON, `{"to": "root@localhost", "from": "ceo@bank.example", "subject": "a", "text": "x"}`, 403, "The address in from is not the VM's"},
		{asJSON, `{"to": ["x@shop.lodge.localhost", "eve@evil.example"], "subject": "a", "text": "x"}`, 403, "eve@evil.example: 550 5.7.1 blog may write to its people"},
		{asJSON, `{"to": ["x@shop.lodge.localhost", "x@none.lodge.localhost"], "subject": "a", "text": "x"}`, 422, "x@none.lodge.localhost: 550 5.1.1"},
		{asMessage, "From: ceo@bank.example\nTo: x@shop.lodge.localhost\n\nx", 403, "The address in from is not the VM's"},
		{asMessage, "From: a@localhost\nFrom: a@localhost\nTo: x@shop.lodge.localhost\n\nx", 422, "more than one From"},
		{asMessage, "To: x@shop.lodge.localhost\nSubject: a\rb\n\nx", 400, "a CR that ends no line"},
		{asMessage, "To: x@shop.lodge.localhost\n\nx\ry\n", 400, "a CR that ends no line"},
		{asMessage, "To: x@shop.lodge.localhost\nSubject: a\x00b\n\nx\n", 422, "NUL"},
		{asMessage, "To: x@shop.lodge.localhost\n\n" + long[:70_000], 400, "a line above 64 KiB"},
		{asMessage, "To: x@shop.lodge.localhost\n\n" + strings.Repeat("x\n", 2<<20), 413, "the message is above 2097152 bytes"},
		{asMessage, "To: x@shop.lodge.localhost\n\n" + strings.Repeat("x\n", 900_000), 413, "size exceeds"},
		{asMessage, strings.Repeat("To: x@shop.lodge.localhost\n", 10_000), 422, "longer than 256 KiB"},
		{asMessage, "To: ,;\n\nx", 400, "the header to cannot be read"},
		{asMessage, "just text\n", 400, "there is no recipient"},
		{"text/plain", "x", 415, "application/json or message/rfc822"},
		{"", "x", 415, "application/json or message/rfc822"},
	} {
		status, _, answer := post(t, url, row.kind, strings.NewReader(row.body))
		var refusal submit.Refusal
		err := json.Unmarshal([]byte(answer), &refusal)
		if status != row.status || err != nil || !strings.Contains(refusal.Error, row.text) {
			t.Errorf("%.100q: %d %s, want %d %s", row.body, status, answer, row.status, row.text)
		}
	}
	if status, _, answer := post(t, f.posting(t, gateway.Identity{}), asJSON, strings.NewReader(`{}`)); status != 403 {
		t.Errorf("from no VM: %d %s", status, answer)
	}
	if a, b := f.list(t, blog), f.list(t, shop); len(a)+len(b)+len(out.sent) != 0 {
		t.Errorf("%v, %v, %v", a, b, out.sent)
	}
	leftNothing(t, filepath.Join(f.dir, "stage"))
}

// A whole message goes out byte for byte, with its LF as CRLF, but for Bcc and what it lacks; its
// recipients are in its header.
func TestPostMessage(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, nil)
	blog := f.add(t, "blog")
	body := "\n.\n\x00\xff\nlast line without an end"
	status, _, answer := post(t, f.posting(t, blog), asMessage, strings.NewReader("From root Mon Nov 29 09:00:00 2026\nFrom: a@blog\nTo: ANN@example.org,\n root@localhost\nBCC: z@localhost\nDate: x\nSubject: =?x?=\n"+body))
	if status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
	want := regexp.MustCompile(`(?s)^Received: from blog \(blog\.lodge\.localhost\)\r\n\tby lodge\.localhost with HTTP; [^\r]+\r\nFrom: <a@blog\.lodge\.localhost>\r\nTo: ANN@example\.org,\r\n root@localhost\r\nDate: x\r\nSubject: =\?x\?=\r\nMessage-ID: <[^\r]+>\r\n(.*)$`)
	found := want.FindStringSubmatch(out.last(t).text)
	if found == nil || found[1] != strings.ReplaceAll(body, "\n", "\r\n")+"\r\n" {
		t.Errorf("%q", out.last(t).text)
	}
	if n := len(f.list(t, blog)); n != 2 {
		t.Errorf("%d messages", n)
	}
}

func TestPostRates(t *testing.T) {
	t.Parallel()
	rates := submit.DefaultRates()
	rates.Messages = smtpd.Rate{PerSecond: 0.01, Burst: 1}
	f, _, _ := sending(t, func(c *Config) { c.sendRates = &rates })
	url := f.posting(t, f.add(t, "blog"))
	const letter = `{"to": "root@localhost", "subject": "a", "text": "x"}`
	if status, _, answer := post(t, url, asJSON, strings.NewReader(letter)); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
	if status, header, answer := post(t, url, asJSON, strings.NewReader(letter)); status != http.StatusTooManyRequests || header.Get("Retry-After") != "100" {
		t.Errorf("%d %v %s", status, header, answer)
	}
}
