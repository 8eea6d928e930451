package oidc_test

import (
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/https/login/oidc"
)

func TestAddress(t *testing.T) {
	for sent, want := range map[string]string{
		"ann@example.org":                        "ann@example.org",
		"Ann.B+x@Example.ORG":                    "ann.b+x@example.org",
		"owner@lodge.localhost":                  "owner@lodge.localhost",
		"ann@müller.example":                     "ann@xn--mller-kva.example",
		"ann@xn--mller-kva.example":              "ann@xn--mller-kva.example",
		strings.Repeat("a", 64) + "@example.org": strings.Repeat("a", 64) + "@example.org",
	} {
		if got, err := oidc.Address(sent); err != nil || got != want {
			t.Errorf("%q: %q, %v", sent, got, err)
		}
	}
	for _, sent := range []string{
		"", "ann", "@example.org", "ann@", "ann@example.org.", "ann@.example.org", "ann@exa mple.org", " ann@example.org", "ann@example.org ",
		"a@b@example.org", `"ann"@example.org`, "Ann <ann@example.org>", "ann@example.org, eve@example.org", ".ann@example.org", "a..b@example.org",
		"аnn@example.org" /* a Cyrillic а */, "an\u212a@example.org", "ann@ban\u212a.example", "ann@\uff45xample.org" /* a full-width e */, "ann@example\u3002org" /* an ideographic full stop */, "ann@127.0.0.1", "ann@[127.0.0.1]", "ann@exam_ple.org",
		"ann\x00@example.org", "ann@example.org\n", strings.Repeat("a", 65) + "@example.org", "ann@" + strings.Repeat("a.", 130) + "org", "<b>@example.org",
	} {
		if got, err := oidc.Address(sent); gateway.KindOf(err) != gateway.KindInvalid || got != "" {
			t.Errorf("%q: %q, %v", sent, got, err)
		}
	}
}

// FuzzAddress: an address comes out unchanged, in lower case ASCII with one @, or not at all.
func FuzzAddress(f *testing.F) {
	f.Add("Ann@Example.org")
	f.Add("ann@müller.example")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := oidc.Address(s)
		if err != nil {
			return
		}
		again, err := oidc.Address(got)
		if err != nil || again != got || strings.Count(got, "@") != 1 || len(got) > 254 {
			t.Errorf("%q became %q, then %q, %v", s, got, again, err)
		}
		for _, c := range []byte(got) {
			if c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' || c == '<' || c == '"' {
				t.Errorf("%q became %q", s, got)
			}
		}
	})
}
