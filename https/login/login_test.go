package login

import (
	"net/http"
	"strings"
	"testing"

	"lodge/https/login/browser"
	"lodge/https/names"
)

// FuzzStripCookies: whatever a client sends, no cookie of the gateway is left, and the others are.
func FuzzStripCookies(f *testing.F) {
	f.Add("a=1; __Host-lodge=x; b=2")
	f.Add("__Host-lodge=x")
	f.Add(" __Host-lodge-handoff = x ;;; c")
	f.Add("\"__Host-lodge\"=x; __host-LODGE=y")
	f.Fuzz(func(t *testing.T, cookies string) {
		h := http.Header{"Cookie": {cookies, "last=1"}}
		StripCookies(h)
		for _, c := range (&http.Request{Header: h}).Cookies() {
			if c.Name == sessionCookie || c.Name == browser.BindingCookie || c.Name == visitCookie || c.Name == triedCookie {
				t.Errorf("%q leaves %q", cookies, h["Cookie"])
			}
		}
		if last := h["Cookie"]; len(last) == 0 || last[len(last)-1] != "last=1" {
			t.Errorf("another cookie was lost: %q", last)
		}
	})
}

func TestStripCookies(t *testing.T) {
	for sent, want := range map[string]string{
		"a=1; __Host-lodge=x; b=2":             "a=1; b=2",
		"__Host-lodge=x":                       "",
		"__HOST-LODGE=x; a=1":                  "a=1", // a lenient app may ignore the case
		"a=1; __host-lodge-handoff=x":          "a=1",
		"__Host-lodge-tried=1; a=1":            "a=1",
		"__HOST-LODGE-HANDOFF=x; b=1":          "b=1",
		"\u017f=1; __ho\u017ft-lodge=x":        "\u017f=1", // a long s, which folds to s
		"__Host-other=x; __Host-lodge-other=y": "__Host-other=x; __Host-lodge-other=y",
		`a="__HOST-LODGE"; b=__Host-lodge`:     `a="__HOST-LODGE"; b=__Host-lodge`,
	} {
		h := http.Header{"Cookie": {sent}}
		StripCookies(h)
		if got := h.Get("Cookie"); got != want {
			t.Errorf("of %q %q is left, want %q", sent, got, want)
		}
	}
}

// FuzzNarrowSetCookies: whatever an app sends, no cookie is for more than its VM, and its name and
// value are kept.
func FuzzNarrowSetCookies(f *testing.F) {
	f.Add("a=1; Domain=lodge.localhost")
	f.Add("a=1;domain=.lodge.localhost;Domain=blog.lodge.localhost;DOMAIN")
	f.Add("Domain=lodge.localhost; \tdomain\t=\tlodge.localhost\t;")
	name := names.Name{Host: "any.blog.lodge.localhost", Plain: "blog.lodge.localhost"}
	f.Fuzz(func(t *testing.T, line string) {
		h := http.Header{"Set-Cookie": {line}}
		NarrowSetCookies(h, name)
		pair, _, _ := strings.Cut(line, ";")
		got, attributes, _ := strings.Cut(h.Get("Set-Cookie"), ";")
		if got != pair {
			t.Errorf("%q became %q", pair, got)
		}
		for attribute := range strings.SplitSeq(attributes, ";") { // RFC 6265 §5.2
			key, value, _ := strings.Cut(attribute, "=")
			domain := strings.ToLower(strings.TrimPrefix(strings.Trim(value, " \t"), "."))
			if strings.EqualFold(strings.Trim(key, " \t"), "domain") && domain != name.Plain && !strings.HasSuffix(domain, "."+name.Plain) {
				t.Errorf("%q has the domain %q", h.Get("Set-Cookie"), domain)
			}
		}
	})
}
