package people_test

import (
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/people"
)

func TestParseAddress(t *testing.T) {
	long := strings.Repeat("a", 63)
	for text, want := range map[string]string{
		"ada@example.com":                    "ada@example.com",
		"Ada.L+x@EXAMPLE.Com":                "ada.l+x@example.com",
		"owner@lodge.localhost":              "owner@lodge.localhost",
		"root@localhost":                     "root@localhost",
		"o'neil@example.com":                 "o'neil@example.com",
		"ada@bücher.example":                 "ada@xn--bcher-kva.example",
		"ada@BÜCHER.example":                 "ada@xn--bcher-kva.example",
		"ada@ｅxample.com":                    "ada@example.com",        // full width
		"ada@ex\u0430mple.com":               "ada@xn--exmple-4nf.com", // a Cyrillic letter is seen
		"ada@example\u3002com":               "ada@example.com",
		"\u0430da@example.com":               "", // Cyrillic
		"\u212aate@example.com":              "", // the Kelvin sign, which folds to k
		"ada@example.com\u200b":              "ada@example.com",
		"a\u200bda@example.com":              "",
		"":                                   "",
		"ada":                                "",
		"@example.com":                       "",
		"ada@":                               "",
		"ada@example.com.":                   "",
		"ada@example..com":                   "",
		"ada@-example.com":                   "",
		"ada@exa_mple.com":                   "",
		"ada@[127.0.0.1]":                    "",
		"ada@127.0.0.1":                      "",
		"ada@@example.com":                   "",
		"ada@example.com, bob@example.com":   "",
		"ada lovelace@example.com":           "",
		`"ada"@example.com`:                  "",
		"<ada@example.com>":                  "",
		"<script>alert(1)</script>@x.org":    "",
		"ada@<b>.org":                        "",
		".ada@example.com":                   "",
		"ada.@example.com":                   "",
		"a..b@example.com":                   "",
		"ada@example.com\r\nX-Lodge-User: x": "",
		"ada\x00@example.com":                "",
		"ada\xff@example.com":                "",
		"ada@\xff.com":                       "",
		strings.Repeat("a", 64) + "@x.org":   strings.Repeat("a", 64) + "@x.org",
		strings.Repeat("a", 65) + "@x.org":   "",
		"ada@" + long + "." + long + "." + long + ".example.com":                    "ada@" + long + "." + long + "." + long + ".example.com",
		strings.Repeat("a", 60) + "@" + long + "." + long + "." + long + ".example": "", // 261 bytes
		strings.Repeat("a", 300) + "@example.com":                                   "",
		"ada@" + strings.Repeat("a.", 200) + "com":                                  "",
		strings.Repeat("é", 100000):                                                 "",
	} {
		got, err := people.ParseAddress(text)
		if got != want || (err == nil) != (want != "") || err != nil && gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%.80q: %q, %v; want %q", text, got, err, want)
		}
		if err != nil && len(err.Error()) > 1500 {
			t.Errorf("%.80q: an error of %d bytes", text, len(err.Error()))
		}
	}
}

// FuzzParseAddress: what comes out is ASCII in lower case, safe in a header, a key and a page, within
// the limits, and itself again.
func FuzzParseAddress(f *testing.F) {
	for _, text := range []string{"ada@example.com", "a+b@bücher.example", "a@ｅ.org", "\u212a@x.org", "a@\u3002.x", "a@[::1]", "a@1.2.3.4", "<b>@x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := people.ParseAddress(text)
		if err != nil {
			if got != "" || gateway.KindOf(err) != gateway.KindInvalid {
				t.Errorf("%q: %q, %v", text, got, err)
			}
			return
		}
		if len(got) > 254 || strings.Count(got, "@") != 1 || got != strings.ToLower(got) || strings.ContainsAny(got, " \t\r\n\"<>(),:;\\[]") {
			t.Errorf("%q: %q", text, got)
		}
		for _, c := range []byte(got) {
			if c <= ' ' || c >= 0x7f {
				t.Errorf("%q: %q has %#x", text, got, c)
			}
		}
		if again, err := people.ParseAddress(got); err != nil || again != got {
			t.Errorf("%q: %q, and then %q, %v", text, got, again, err)
		}
	})
}
