package submit

import (
	"bytes"
	"net/mail"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/inbound"
	"lodge/mail/smtpd"
)

func testPolicy(tb testing.TB) (*Policy, gateway.VM) {
	tb.Helper()
	blog := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Desired: gateway.Running}
	shop := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "shop"}, Desired: gateway.Running}
	directory := gatewaytest.NewDirectory(tb, new(gatewaytest.Records), blog, shop)
	log := new(gatewaytest.Log).Logger()
	return New(Config{
		Domain: "lodge.test", Directory: directory, Rates: DefaultRates(), Logger: log,
		Inbound: inbound.New(inbound.Config{Domain: "lodge.test", Directory: directory, Logger: log}),
	}), blog
}

// A header ends where every program takes it to end, wherever the pieces of the message are cut.
func TestSplit(t *testing.T) {
	for text, want := range map[string]string{
		"A: 1\r\n\r\nx\r\n":                   "A: 1\r\n|x\r\n",
		"A: 1\r\n b\r\nB : 2\r\n\r\n":         "A: 1\r\n b\r\nB : 2\r\n|",
		"\r\nx\r\n":                           "|x\r\n",
		"plain text\r\n":                      "|plain text\r\n",
		"A: 1\r\nplain: text: \r\n\r\n\r\n":   "A: 1\r\nplain: text: \r\n|\r\n",
		"A: 1\r\nplain text: x\r\n\r\n":       "A: 1\r\n|plain text: x\r\n\r\n",
		" x\r\nA: 1\r\n":                      "| x\r\nA: 1\r\n",
		"From a Mon Nov 29 09:00\r\nA: 1\r\n": "A: 1\r\n|",
		"A: 1\r\n: x\r\n":                     "A: 1\r\n|: x\r\n",
		"A: 1":                                "A: 1|",
		"A: 1\r\nB":                           "A: 1\r\n|B",
		"":                                    "|",
	} {
		for step := 1; step <= len(text)+1; step++ {
			var s splitter
			var body []byte
			for from := 0; from < len(text); from += step {
				rest, err := s.write([]byte(text[from:min(from+step, len(text))]))
				gatewaytest.Must(t, err)
				body = append(body, rest...)
			}
			body = append(body, s.end()...)
			if got := string(s.text) + "|" + string(body); got != want {
				t.Errorf("%q in pieces of %d: %q, want %q", text, step, got, want)
			}
		}
	}
}

// Whatever a program sends, what goes out is a header that every program reads in the same way: its
// authors, as Go's parser reads them too, are the VM's; there is one From, a Date and a Message-ID; no Bcc;
// and no field is new that was not one before.
func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		"From: a@blog.lodge.test\r\nBcc: x@y\r\n z@y\r\n\r\nx", "from : root (Cron)\r\nDate:\r\n\r\n", "From: a@shop.lodge.test\r\n",
		"Subject: x\r\n \r\nFrom: ceo@bank.example\r\n\r\n", "From: =?utf-8?q?=0D=0ABcc:_x?= <a@localhost>\r\n\r\n", "no header",
		"From: \"a\\\"b\" <\"x y\"@blog.lodge.test>\r\n", "From: g: a@blog.lodge.test, <b@blog.lodge.test>;\r\nSender: <@x:a@blog>\r\n", "From: a(b)c\r\n",
		"From: a\tb <root>\r\n", "Resent-Sender: a@b\r\n", "From: =?q?x <root>\r\n",
	} {
		f.Add([]byte(seed), 3)
	}
	p, blog := testPolicy(f)
	now := time.Now()
	f.Fuzz(func(t *testing.T, text []byte, step int) {
		text = bytes.ReplaceAll(bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r"), nil), []byte("\n"), []byte("\r\n")), []byte("\x00"), nil)
		step = max(1, step)
		var s splitter
		var body []byte
		for from := 0; from < len(text); from += min(step, len(text)-from) {
			rest, err := s.write(text[from : from+min(step, len(text)-from)])
			if err != nil {
				return
			}
			body = append(body, rest...)
		}
		body = append(body, s.end()...)
		before := fields(s.text)
		out, err := p.rewrite(s.text, rewriting{blog, smtpd.Path{Local: "a", Domain: "blog.lodge.test"}, "id", now})
		if err != nil {
			return
		}
		if !strings.HasSuffix(string(out), "\r\n") || bytes.Contains(out, []byte("\r\n\r\n")) || !bytes.HasSuffix(text, body) {
			t.Fatalf("%q becomes %q, with %q", text, out, body)
		}
		after := fields(out)
		counts := map[string]int{}
		for _, field := range after {
			counts[field.name]++
			if isAuthorField(field.name) {
				checkAuthors(t, p, blog, field)
			}
		}
		if counts["from"] == 0 || counts["date"] == 0 || counts["message-id"] == 0 || counts["bcc"] > 0 || len(after) > len(before)+3 {
			t.Errorf("%q becomes %q", text, out)
		}
		for name := range counts {
			known := name == "from" || name == "date" || name == "message-id"
			for _, field := range before {
				known = known || field.name == name
			}
			if !known {
				t.Errorf("%q has %s of %q", out, name, text)
			}
		}
	})
}

// checkAuthors reads a field as another program would.
func checkAuthors(t *testing.T, p *Policy, vm gateway.VM, f field) {
	t.Helper()
	list, err := (&mail.AddressParser{WordDecoder: anyCharset()}).ParseList(unfold(f.value()))
	if err != nil || len(list) == 0 {
		t.Errorf("%q cannot be read: %v", f.text, err)
	}
	for _, one := range list {
		local, domain := one.Address[:strings.LastIndexByte(one.Address, '@')], one.Address[strings.LastIndexByte(one.Address, '@')+1:]
		if !p.owns(vm, smtpd.Path{Local: local, Domain: domain}) {
			t.Errorf("%q is sent", f.text)
		}
	}
	if strings.ContainsRune(textproto.TrimString(string(f.text)), '\x00') {
		t.Errorf("%q has a NUL", f.text)
	}
}

// Nothing in a letter adds a header, or a recipient that is not in its lists.
func FuzzLetter(f *testing.F) {
	f.Add("A <a@blog.lodge.test>", "b@example.com", "hello", "text", "<p>", "<a@b>")
	f.Add("", "\"x\\\" y\" <b@example.com>, c@d", "a\u2028b", ".\r\n", "", "")
	f.Add("a@b\r\nBcc: x@y", "g: a@b;", "\r\nX: y", "\x00", "--", "<a@b>\r\nX: y")
	f.Fuzz(func(t *testing.T, from, to, subject, text, html, reply string) {
		l := Letter{From: from, To: addresses{to}, Bcc: addresses{"z@example.net"}, Subject: subject, Text: text, HTML: html, InReplyTo: reply}
		out, list, err := l.compose("blog.lodge.test", "blog")
		if err != nil {
			return
		}
		allowed := " from to subject in-reply-to references mime-version content-type content-transfer-encoding "
		for _, field := range fields(headerOf(out)) {
			if !strings.Contains(allowed, " "+field.name+" ") || isBlank(field.text) {
				t.Errorf("%q has %q", out, field.text)
			}
		}
		m, err := mail.ReadMessage(bytes.NewReader(out))
		if err != nil || len(m.Header["Subject"]) != 1 {
			t.Fatalf("%q: %v", out, err)
		}
		shown, err := m.Header.AddressList("To")
		if len(list) > 1 && (err != nil || len(shown) != len(list)-1) {
			t.Errorf("%q shows %v, and goes to %v (%v)", out, shown, list, err)
		}
		for line := range bytes.SplitSeq(out, []byte("\r\n")) {
			if bytes.ContainsAny(line, "\r\n\x00") {
				t.Errorf("line %q", line)
			}
		}
	})
}
