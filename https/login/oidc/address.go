package oidc

import (
	"strings"

	"golang.org/x/net/idna"

	"lodge/gateway"
	"lodge/gateway/people"
)

// Address returns a mail address that a provider has sent, in the form of people.ParseAddress. It is
// stricter in one thing: a letter of the domain that ParseAddress maps to another one, such as a full-width
// e, is KindInvalid. Somebody who types such an address means the mapped one. A provider has verified the
// one that it sends, which may be another domain to it.
func Address(s string) (string, error) {
	address, err := people.ParseAddress(s)
	if err != nil {
		return "", errAddress(s).Because(err)
	}
	_, sent, _ := strings.Cut(s, "@")
	_, domain, _ := strings.Cut(address, "@")
	if exact, err := idna.Registration.ToASCII(lower(sent)); err != nil || exact != domain { // IDNA 2008, which maps nothing
		return "", errAddress(s)
	}
	return address, nil
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

func errAddress(s string) *gateway.Error {
	return gateway.Errorf(gateway.KindInvalid, "%.100q is not a mail address that can log in", s).WithHint("It needs a plain one, such as ann@example.com.")
}
