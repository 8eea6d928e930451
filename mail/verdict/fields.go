package verdict

import (
	"bytes"
	"io"
	"mime"
	"net/mail"
	"regexp"
	"strings"
)

// split returns the name of a field and its value, as DKIM's library does: there may be white space around
// the name (RFC 5322 §4.5), and a line without a colon is all name.
func split(field []byte) (name string, value []byte) {
	before, value, _ := bytes.Cut(field, []byte(":"))
	return string(bytes.TrimSpace(before)), value
}

// ours reports whether only this host may write a field.
func (f *Filter) ours(field []byte) bool {
	if field[0] == ' ' || field[0] == '\t' {
		return true // it would continue our last header
	}
	name, value := split(field)
	switch name = strings.ToLower(name); {
	case name == "delivered-to", name == "return-path", name == "x-spam", strings.HasPrefix(name, "x-lodge-"):
		return true
	case name == "authentication-results":
		id, ok := authservID(string(value))
		id = strings.TrimSuffix(strings.ToLower(id), ".")
		return !ok || !printable(id) || id == f.authservID || strings.HasSuffix(id, "."+f.authservID)
	}
	return false
}

// authservID reads the first word of an Authentication-Results header (RFC 8601 §2.2), behind comments
// maybe. ok is false if there is none.
func authservID(value string) (id string, ok bool) {
	value, ok = skipComments(value)
	if !ok || value == "" {
		return "", false
	}
	if quoted, ok := strings.CutPrefix(value, `"`); ok {
		var text strings.Builder
		for i := 0; i < len(quoted); i++ {
			switch c := quoted[i]; {
			case c == '"':
				return strings.TrimSpace(text.String()), true
			case c == '\\' && i+1 < len(quoted):
				i++
				text.WriteByte(quoted[i])
			case c != '\r' && c != '\n':
				text.WriteByte(c)
			}
		}
		return "", false
	}
	end := strings.IndexFunc(value, func(c rune) bool { return c <= ' ' || c == 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?=`, c) })
	if end < 0 {
		end = len(value)
	}
	return value[:end], end > 0
}

// skipComments cuts white space and comments, which nest, from the front. ok is false if one does not end.
func skipComments(s string) (rest string, ok bool) {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '(':
			depth++
		case depth > 0 && c == ')':
			depth--
		case depth > 0 && c == '\\':
			i++
		case depth == 0 && !strings.ContainsRune(" \t\r\n", rune(c)):
			return s[i:], true
		}
	}
	return "", depth == 0
}

// angle finds the address of a From header that breaks RFC 5322 in its display name, such as by a comma.
var angle = regexp.MustCompile(`^[^<>]*<[^<>@]+@([^<>@]+)>$`)

// author returns the domain of the addresses in a From header, as hostName does; empty if there is none,
// or more than one. The address is that at this domain, if there is one alone.
func author(value []byte) (domain, address string) {
	text := strings.TrimSpace(strings.NewReplacer("\r", "", "\n", "").Replace(string(value))) // unfolded
	// The charset of a name does not matter.
	words := &mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}
	list, err := (&mail.AddressParser{WordDecoder: words}).ParseList(text)
	if match := angle.FindStringSubmatch(text); err != nil && match != nil {
		return hostName(match[1]), ""
	}
	for _, a := range list {
		name := hostName(a.Address[strings.LastIndexByte(a.Address, '@')+1:])
		if name == "" || domain != "" && name != domain {
			return "", ""
		}
		domain = name
	}
	if len(list) == 1 {
		address = list[0].Address
	}
	return domain, address
}
