package smtpd

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPathBytes is the longest address (RFC 5321 §4.5.3.1.3, without the angle brackets).
const maxPathBytes = 254

// Path is an address of an envelope. The zero Path is the null sender; the postmaster of RFC 5321
// §4.5.1 has no Domain.
type Path struct {
	Local  string // without the quotes and backslashes that it came with; UTF-8 without control characters
	Domain string // as it came: letters, digits, ".-_" and UTF-8, or an address literal in brackets
}

// ParsePath reads an address in angle brackets, up to the end of s. ok is false for what no header may
// have, or what is ambiguous: control characters, angle brackets, a second "@" without quotes, more than
// 254 bytes. A source route is ignored (RFC 5321 appendix C). Local parts may have empty atoms, as some
// large hosts give to people.
func ParsePath(s string) (p Path, ok bool) {
	p, rest, ok := cutPath(s)
	return p, ok && rest == ""
}

// ASCII reports whether SMTPUTF8 is not needed for p.
func (p Path) ASCII() bool {
	for _, c := range []byte(p.Local + p.Domain) {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// String writes the address without the brackets, its local part in quotes where RFC 5321 §4.1.2
// requires that.
func (p Path) String() string {
	local := p.Local
	if p != (Path{}) && !isDotString(local) {
		local = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(local) + `"`
	}
	if p.Domain == "" {
		return local
	}
	return local + "@" + p.Domain
}

// specials are the characters that no atom has (RFC 5322 §3.2.3), and the space.
const specials = ` "(),:;<>@[\]`

func isDotString(local string) bool {
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsAny(atom, specials) {
			return false
		}
	}
	return true
}

// cutPath reads an address in angle brackets, and returns what follows.
func cutPath(s string) (p Path, rest string, ok bool) {
	s, ok = strings.CutPrefix(s, "<")
	if !ok {
		return Path{}, "", false
	}
	if rest, ok := strings.CutPrefix(s, ">"); ok {
		return Path{}, rest, true
	}
	if strings.HasPrefix(s, "@") { // a source route: "@a,@b:"
		route, after, found := strings.Cut(s, ":")
		if !found || strings.ContainsAny(route, `<>" `) {
			return Path{}, "", false
		}
		s = after
	}
	if p.Local, s, ok = cutLocal(s); !ok {
		return Path{}, "", false
	}
	if strings.EqualFold(p.Local, "postmaster") && strings.HasPrefix(s, ">") {
		return Path{Local: "postmaster"}, s[1:], true
	}
	if s, ok = strings.CutPrefix(s, "@"); !ok {
		return Path{}, "", false
	}
	p.Domain, rest, ok = strings.Cut(s, ">")
	ok = ok && isDomain(p.Domain) && isText(p.Local+p.Domain) && !strings.ContainsAny(p.Local, "<>")
	return p, rest, ok && len(p.Local)+1+len(p.Domain) <= maxPathBytes
}

// cutLocal reads a local part: a quoted string, or atoms and dots.
func cutLocal(s string) (local, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, specials)
		return s[:max(end, 0)], s[max(end, 0):], end > 0
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

func isDomain(s string) bool {
	if literal, ok := strings.CutPrefix(s, "["); ok {
		inside, ok := strings.CutSuffix(literal, "]")
		return ok && inside != "" && strings.Trim(inside, "0123456789abcdefABCDEFIPv.:") == ""
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" {
			return false
		}
	}
	return strings.IndexFunc(s, func(r rune) bool {
		isName := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(".-_", r)
		return r < utf8.RuneSelf && !isName
	}) < 0
}

// isText reports whether s is UTF-8 without control characters and line separators.
func isText(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
	}) < 0
}
