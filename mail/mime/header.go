package mime

import (
	"bytes"
	"iter"
	"strings"
)

// Fields returns the fields of a header: the name as it is written, and the whole field with its
// continuation lines and line ends. Lines that belong to no field are left out.
func Fields(header []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for len(header) > 0 {
			n := fieldLen(header)
			field := header[:n]
			header = header[n:]
			name, _, ok := bytes.Cut(field, []byte(":"))
			name = bytes.TrimRight(name, " \t")
			if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t\r\n") {
				continue
			}
			if !yield(string(name), field) {
				return
			}
		}
	}
}

// fieldLen returns the length of a line and of its continuation lines.
func fieldLen(header []byte) int {
	n := 0
	for {
		i := bytes.IndexByte(header[n:], '\n')
		if i < 0 {
			return len(header)
		}
		n += i + 1
		if n == len(header) || header[n] != ' ' && header[n] != '\t' {
			return n
		}
	}
}

// Value returns the value of a field of Fields on one line (RFC 5322 §2.2.3).
func Value(field []byte) string {
	_, value, _ := bytes.Cut(field, []byte(":"))
	value = bytes.ReplaceAll(value, []byte("\n"), nil)
	return strings.Trim(strings.ReplaceAll(string(value), "\r", ""), " \t")
}

// Params splits the value of a field such as Content-Disposition: what is before the first
// semicolon in lower case, and the parameters by lower-case name, the first of each name. Quotes and
// comments are removed. Values stay encoded (RFC 2231: the name then ends in "*").
func Params(value string) (string, map[string]string) {
	first, stop, rest := cut(value, ";")
	params := map[string]string{}
	for stop == ';' && len(params) < maxParams {
		var name, text string
		if name, stop, rest = cut(rest, ";="); stop == '=' {
			text, stop, rest = cut(rest, ";")
		}
		name = strings.ToLower(name)
		if _, twice := params[name]; isToken(name) && !twice {
			params[name] = text
		}
	}
	return strings.ToLower(first), params
}

// cut returns the text of s before the first of stops (RFC 2045 §5.1), without quotes and comments,
// that stop, and what is behind it. stop is 0 at the end of s.
func cut(s, stops string) (text string, stop byte, rest string) {
	var b strings.Builder
	quoted, comments := false, 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && (quoted || comments > 0) && i+1 < len(s):
			if i++; quoted {
				b.WriteByte(s[i])
			}
		case c == '"' && comments == 0:
			quoted = !quoted
		case quoted:
			b.WriteByte(c)
		case c == '(':
			comments++
		case c == ')' && comments > 0:
			comments--
		case comments > 0:
		case strings.IndexByte(stops, c) >= 0:
			return strings.TrimSpace(b.String()), c, s[i+1:]
		default:
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String()), 0, ""
}

// contentType splits the value of a Content-Type; ok is false if the type is invalid.
func contentType(value string) (kind, subtype string, params map[string]string, ok bool) {
	media, params := Params(value)
	kind, subtype, _ = strings.Cut(media, "/")
	return kind, subtype, params, isToken(kind) && isToken(subtype)
}

// isToken reports whether s is a token (RFC 2045 §5.1).
func isToken(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?=`, s[i]) >= 0 {
			return false
		}
	}
	return s != ""
}
