package domains_test

import (
	"strings"
	"testing"

	"golang.org/x/net/publicsuffix"

	"lodge/gateway"
	"lodge/gateway/domains"
)

const hostDomain = "vms.host.example.net"

func verifier(servers ...string) *domains.Verifier {
	return domains.New(domains.Config{Domain: hostDomain, Servers: servers})
}

func TestParse(t *testing.T) {
	long := strings.Repeat("a.", 100) + "example.com"
	for text, want := range map[string]string{
		"app.example.com":                  "app.example.com",
		"APP.Example.COM.":                 "app.example.com",
		"example.com":                      "example.com",
		"*.example.com":                    "*.example.com",
		"bücher.example":                   "xn--bcher-kva.example",
		"*.Bücher.example":                 "*.xn--bcher-kva.example",
		"xn--bcher-kva.example":            "xn--bcher-kva.example",
		"foo.example.co.uk":                "foo.example.co.uk",
		"other.host.example.net":           "other.host.example.net",
		"vms.host.example.net.evil.org":    "vms.host.example.net.evil.org",
		"notvms.host.example.net":          "notvms.host.example.net",
		"1.example.com":                    "1.example.com",
		"":                                 "",
		".":                                "",
		"*":                                "",
		"*.":                               "",
		"**.example.com":                   "",
		"*.*.example.com":                  "",
		"a.*.example.com":                  "",
		"*a.example.com":                   "",
		"a..example.com":                   "",
		".example.com":                     "",
		"example.com..":                    "",
		"-a.example.com":                   "",
		"a_b.example.com":                  "",
		"a b.example.com":                  "",
		"a/b.example.com":                  "",
		"app.example.com:443":              "",
		"https://app.example.com":          "",
		"xn--zzzzzzzzzzzz9999.example.com": "",
		"app.example.com\x00":              "",
		"app\xc3.example.com":              "",
		strings.Repeat("a", 64) + ".com":   "",
		long:                               long,
		"a." + long:                        "a." + long,
		strings.Repeat("a.", 2000) + "com": "",
		strings.Repeat("a.", 122) + "com":  "",
		"192.0.2.1":                        "",
		"*.192.0.2.1":                      "",
		"0x7f.1":                           "",
		"a.0x7f":                           "",
		"::1":                              "",
		"2001:db8::1":                      "",
		"localhost":                        "",
		"app.localhost":                    "",
		"*.localhost":                      "",
		"lodge.internal":                   "",
		"s3.lodge.internal":                "",
		"printer.local":                    "",
		"1.2.0.192.in-addr.arpa":           "",
		"example":                          "",
		"com":                              "",
		"*.com":                            "",
		"co.uk":                            "",
		"*.co.uk":                          "",
		"*.github.io":                      "",
		"vms.host.example.net":             "",
		"VMS.host.example.net.":            "",
		"*.vms.host.example.net":           "",
		"blog.vms.host.example.net":        "",
		"host.example.net":                 "",
		"*.host.example.net":               "",
		"example.net":                      "",
		"*.example.net":                    "",
	} {
		got, err := verifier().Parse(text)
		if got != want || (err == nil) != (want != "") || err != nil && gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

// FuzzParse: what is accepted is a host name in lower case that is not the host's, nor a public
// suffix; parsing it again changes nothing.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"app.example.com", "*.bücher.example.", "*.com", "192.0.2.1", "blog." + hostDomain, "*.*.a.b", "xn--a.com", "a\u3002example.com", "ｅxample.com"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := verifier().Parse(text)
		if err != nil {
			if gateway.KindOf(err) != gateway.KindInvalid || got != "" {
				t.Errorf("%q: %q, %v", text, got, err)
			}
			return
		}
		again, err := verifier().Parse(got)
		if err != nil || again != got {
			t.Errorf("%q: %q, and again %q, %v", text, got, again, err)
		}
		base := strings.TrimPrefix(got, "*.")
		for label := range strings.SplitSeq(base, ".") {
			if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' {
				t.Errorf("%q: the label %q", text, label)
			}
		}
		if len(got) > 253 || base == hostDomain || strings.HasSuffix(base, "."+hostDomain) || strings.HasSuffix(hostDomain, "."+base) {
			t.Errorf("%q: %q", text, got)
		}
		if suffix, _ := publicsuffix.PublicSuffix(base); suffix == base {
			t.Errorf("%q is a public suffix", got)
		}
	})
}
