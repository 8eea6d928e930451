package oidc

import (
	"strings"

	"golang.org/x/net/idna"

	"lodge/gateway"
)

// Address returns a mail address in the form in which addresses are compared: in lower case, its domain
// in ASCII (IDNA 2008). The local part is a dot-atom (RFC 5322 §3.2.3) of at most 64 bytes: letters
// beyond ASCII, which can look like others, and quoted strings are KindInvalid, as are addresses above
// 254 bytes (RFC 5321 §4.5.3.1).
func Address(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 || len(s) > 254 {
		return "", errAddress(s)
	}
	s = lower(s)
	local := s[:at]
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.Trim(atom, "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~") != "" {
			return "", errAddress(s)
		}
	}
	domain, err := idna.Registration.ToASCII(s[at+1:]) // which maps no letter to another one
	if err != nil || len(local)+1+len(domain) > 254 {
		return "", errAddress(s)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return "", errAddress(s)
		}
	}
	return local + "@" + domain, nil
}

// lower maps the letters of ASCII alone: strings.ToLower makes a k of the Kelvin sign.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func errAddress(s string) error {
	return gateway.Errorf(gateway.KindInvalid, "%.100q is not a mail address that can log in", s).WithHint("It needs a plain one, such as ann@example.com.")
}
