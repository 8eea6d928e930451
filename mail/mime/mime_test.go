package mime_test

import (
	"fmt"
	"strings"
	"testing"

	"lodge/mail/mime"
)

// outline writes a part and those in it: type, and octets of the body.
func outline(p *mime.Part) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s/%s %d", p.Type, p.Subtype, p.Body.Len())
	for _, child := range p.Parts {
		s.WriteString(" (" + outline(child) + ")")
	}
	if p.Message != nil {
		s.WriteString(" [" + outline(p.Message) + "]")
	}
	return s.String()
}

func walk(t *testing.T, text string) *mime.Part {
	t.Helper()
	root, err := mime.Walk(strings.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestWalk(t *testing.T) {
	const mixed = "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
	long := strings.Repeat("b", 10_000)
	for name, test := range map[string]struct{ text, want string }{
		"plain":             {"Subject: x\r\n\r\nhi\r\n", "text/plain 4"},
		"empty":             {"", "text/plain 0"},
		"no body":           {"Subject: x\r\n", "text/plain 0"},
		"childless":         {"Content-Type: multipart/mixed\r\n\r\nx", "text/plain 1"},
		"empty boundary":    {"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\nx", "text/plain 7"},
		"never opened":      {mixed + "--b--\r\n", "text/plain 7"},
		"no subtype":        {"Content-Type: multipart\r\n\r\nx", "text/plain 1"},
		"no header end":     {mixed + "--b\r\nContent-Type: text/html\r\n--b--\r\n", "multipart/mixed 37 (text/html 0)"},
		"long boundary":     {"Content-Type: multipart/mixed;\r\n boundary=" + long + "\r\n\r\n--" + long + "\r\n\r\nx\r\n", "multipart/mixed 10009 (text/plain 3)"},
		"two":               {mixed + "pre\r\n--b\r\n\r\none\r\n--b \r\nContent-Type: text/html\r\n\r\ntwo\r\n--b--\r\nepi", "multipart/mixed 65 (text/plain 3) (text/html 3)"},
		"not closed":        {mixed + "--b\r\n\r\none", "multipart/mixed 10 (text/plain 3)"},
		"outer ends inner":  {mixed + "--b\r\nContent-Type: multipart/x; boundary=c\r\n\r\n--c\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--", "multipart/mixed 71 (multipart/x 8 (text/plain 1)) (text/plain 1)"},
		"message":           {mixed + "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\nin\r\n--b--", "multipart/mixed 60 (message/rfc822 16 [text/plain 2])"},
		"digest":            {"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: y\r\n\r\nin\r\n--b--", "multipart/digest 30 (message/rfc822 16 [text/plain 2])"},
		"comment and twice": {"Content-Type: TEXT/html (x;y); charset=a; charset=b\r\n\r\n", "text/html 0"},
	} {
		if got := outline(walk(t, test.text)); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// Depth and number of parts are bounded.
func TestWalkBounds(t *testing.T) {
	var deep strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&deep, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	if got := check(t, walk(t, deep.String()), nil, int64(deep.Len()), 0); got > 51 {
		t.Errorf("10,000 multiparts in each other: %d parts", got)
	}
	messages := strings.Repeat("Content-Type: message/rfc822\r\n\r\n", 10_000)
	if got := check(t, walk(t, messages), nil, int64(len(messages)), 0); got > 51 {
		t.Errorf("10,000 messages in each other: %d parts", got)
	}
	wide := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\nx\r\n", 100_000)
	if got := check(t, walk(t, wide), nil, int64(len(wide)), 0); got != 1000 {
		t.Errorf("100,000 parts: %d parts", got)
	}
}

// check fails on a part that lies outside of the one around it, or a multipart without parts. It
// returns the number of parts.
func check(t *testing.T, p *mime.Part, from *mime.Span, size int64, depth int) int {
	t.Helper()
	if from == nil {
		from = &mime.Span{To: size}
	}
	inside := from.From <= p.Header.From && p.Header.From <= p.Header.To && p.Header.To == p.Body.From && p.Body.From <= p.Body.To
	if !inside || p.Body.To > from.To || p.Lines < 0 || p.Lines > p.Body.Len() || depth > 60 {
		t.Fatalf("header %v, body %v, %d lines in %v at depth %d", p.Header, p.Body, p.Lines, *from, depth)
	}
	if (p.Type == "multipart") != (len(p.Parts) > 0) {
		t.Fatalf("%s/%s has %d parts", p.Type, p.Subtype, len(p.Parts))
	}
	n := 1
	for i, child := range p.Parts {
		if depth == 0 && p.Find([]int{i + 1}) != child {
			t.Fatalf("part %d is not found", i+1)
		}
		n += check(t, child, &p.Body, size, depth+1)
	}
	if p.Message != nil {
		n += check(t, p.Message, &p.Body, size, depth+1)
	}
	return n
}

// Any bytes: no panic, every part lies within the one around it, and every multipart has parts.
func FuzzWalk(f *testing.F) {
	f.Add("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n--b\n\n--b--\r\n")
	f.Add("Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/digest; boundary=\"b\"\n\n--b\n\nSubject: x\n\n--b--")
	f.Fuzz(func(t *testing.T, text string) {
		if n := check(t, walk(t, text), nil, int64(len(text)), 0); n > 1001 {
			t.Fatalf("%d parts", n)
		}
	})
}

func TestHeldCountsEverythingInside(t *testing.T) {
	field := strings.Repeat("x", 1000)
	inner := "--b\r\nContent-Type: text/plain; name=" + field + "\r\nContent-Description: " + field + "\r\n\r\nx\r\n"
	many := walk(t, "Content-Type: multipart/mixed; boundary=b\r\n\r\n"+strings.Repeat(inner, 100))
	if held := many.Held(); held < 300_000 || held > 500_000 {
		t.Errorf("100 parts with 3,000 bytes of fields and parameters hold %d bytes", held)
	}
	message := walk(t, "Content-Type: message/rfc822\r\n\r\nContent-Description: "+field+"\r\n\r\nx")
	if held := message.Held(); held < 1000 {
		t.Errorf("a message in a message holds %d bytes", held)
	}
}
