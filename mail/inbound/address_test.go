package inbound

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// A recipient is a VM's only when its domain is exactly one label in front of ours; whatever else
// is in it, the name that comes out never holds an "@" or our own domain, and an address that is
// fit for headers stays so when it is quoted.
func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"a@blog.lodge.localhost", "a@b@BLOG.Lodge.localhost.", "@.lodge.localhost", "a b@x", `a"b@x.lodge.localhost`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rcpt string) {
		name, ok := vmName(rcpt, "lodge.localhost")
		if ok {
			lower := strings.ToLower(rcpt)
			if name == "" || strings.Contains(name, "@") || !strings.HasSuffix(strings.TrimSuffix(lower, "."), "@"+name+".lodge.localhost") {
				t.Errorf("%q belongs to %q", rcpt, name)
			}
		}
		if !isValid(rcpt) {
			return
		}
		for _, c := range quoted(rcpt) {
			if c < ' ' || c > '~' || c == '<' || c == '>' {
				t.Errorf("%q is quoted as %q", rcpt, quoted(rcpt))
			}
		}
	})
}

// Whatever a client sends, the trace headers have four lines.
func FuzzTrace(f *testing.F) {
	f.Add("client.example", "::1", "a@b", "x@y")
	f.Add("x\r\nBcc: evil", "127.0.0.1", `a"b\@c`, "x y@z")
	f.Fuzz(func(t *testing.T, helo, remote, from, rcpt string) {
		if !isValid(from) || !isValid(rcpt) || !isValid(remote) {
			return
		}
		head := trace{helo: helo, remote: remote, by: "x"}.head("id", from, rcpt)
		if strings.Count(head, "\n") != 5 || strings.Count(head, "\r\n") != 5 || strings.Count(head, "\r") != 5 {
			t.Errorf("%q", head)
		}
	})
}

// A subject is one line of valid UTF-8 of at most 200 bytes without control characters, whatever
// the message.
func FuzzSubject(f *testing.F) {
	f.Add([]byte("From: x\r\nSubject: =?utf-8?q?h=C3=A9?=\r\n =?utf-8?b?4piD?=\r\n\r\nbody"))
	f.Add([]byte("Subject: =?utf-8?q?=0D=0Ax?="))
	f.Fuzz(func(t *testing.T, first []byte) {
		s := subject(first)
		if len(s) > maxSubjectBytes || !utf8.ValidString(s) || strings.ContainsAny(s, "\r\n\x00\x1b") {
			t.Errorf("%q", s)
		}
	})
}
