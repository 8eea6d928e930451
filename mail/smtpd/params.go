package smtpd

import (
	"encoding/hex"
	"slices"
	"strings"
)

// param is a parameter of MAIL or RCPT (RFC 5321 §4.1.2): KEY or KEY=value.
type param struct {
	key      string // in upper case
	value    string // printable, without spaces and "="
	hasValue bool
}

// pathAndParams reads the arguments of MAIL and RCPT. A Code in the Reply is a refusal; status is that
// of a bad address.
func pathAndParams(args, prefix, usage, status string) (Path, []param, Reply) {
	if len(args) < len(prefix) || !strings.EqualFold(args[:len(prefix)], prefix) {
		return Path{}, nil, replySyntax(usage)
	}
	text := strings.TrimLeft(args[len(prefix):], " ") // some programs send a space, against RFC 5321 §3.3
	if !strings.HasPrefix(text, "<") {
		return Path{}, nil, replySyntax(usage)
	}
	path, rest, ok := cutPath(text)
	if !ok || rest != "" && rest[0] != ' ' {
		return Path{}, nil, replyBadPath(status)
	}
	params, ok := parseParams(rest)
	if !ok {
		return Path{}, nil, replyParameter()
	}
	return path, params, Reply{}
}

// parseParams is false for a parameter that is malformed or comes twice.
func parseParams(text string) (params []param, ok bool) {
	for word := range strings.FieldsSeq(text) {
		key, value, hasValue := strings.Cut(word, "=")
		p := param{strings.ToUpper(key), value, hasValue}
		same := func(other param) bool { return other.key == p.key }
		if key == "" || hasValue == (value == "") || strings.Contains(value, "=") || !isText(value) || slices.ContainsFunc(params, same) {
			return nil, false
		}
		params = append(params, p)
	}
	return params, true
}

// unxtext decodes xtext (RFC 3461 §4): "+" and two upper-case hex digits are a byte. What it decodes to
// is text, without control characters.
func unxtext(s string) (string, bool) {
	var b strings.Builder
	for s != "" {
		plain, rest, found := strings.Cut(s, "+")
		b.WriteString(plain)
		if s = rest; !found {
			break
		}
		if len(s) < 2 || strings.ToUpper(s[:2]) != s[:2] {
			return "", false
		}
		c, err := hex.DecodeString(s[:2])
		if err != nil {
			return "", false
		}
		b.Write(c)
		s = s[2:]
	}
	return b.String(), isText(b.String())
}
