package sigv4

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// canonicalRequest is the text that both sides hash.
func canonicalRequest(r *http.Request, signed []string, payloadHash string, presigned bool) (string, error) {
	path, err := canonicalPath(r.URL.EscapedPath())
	if err != nil {
		return "", err
	}
	query, err := canonicalQuery(r.URL.RawQuery, presigned)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(r.Method + "\n" + path + "\n" + query + "\n")
	for _, name := range signed {
		b.WriteString(name + ":" + headerValue(r, name) + "\n")
	}
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + payloadHash)
	return b.String(), nil
}

// canonicalPath encodes each segment once, the way AWS does it; S3 neither encodes twice nor cleans
// paths.
func canonicalPath(escaped string) (string, error) {
	if escaped == "" {
		return "/", nil
	}
	segments := strings.Split(escaped, "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return "", fmt.Errorf("%w: the path cannot be decoded", ErrMalformed)
		}
		segments[i] = Escape(plain, false)
	}
	return strings.Join(segments, "/"), nil
}

func canonicalQuery(raw string, presigned bool) (string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return "", fmt.Errorf("%w: the query cannot be decoded", ErrMalformed)
	}
	if presigned {
		values.Del("X-Amz-Signature")
	}
	escaped := map[string][]string{}
	for name, all := range values {
		for _, v := range all {
			escaped[Escape(name, false)] = append(escaped[Escape(name, false)], Escape(v, false))
		}
	}
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(escaped)) { // not the pairs: "-" is before "="
		for _, v := range slices.Sorted(slices.Values(escaped[name])) {
			pairs = append(pairs, name+"="+v)
		}
	}
	return strings.Join(pairs, "&"), nil
}

// headerValue is a header as it is signed. net/http removes Host, Content-Length and
// Transfer-Encoding from the header map.
func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	case "transfer-encoding":
		return strings.Join(r.TransferEncoding, ",")
	}
	var values []string
	for _, v := range r.Header.Values(name) {
		values = append(values, oneSpace(strings.TrimSpace(v)))
	}
	return strings.Join(values, ",")
}

// oneSpace makes each run of spaces one space; tabs stay.
func oneSpace(s string) string {
	for strings.Contains(s, "  ") {
		s = strings.ReplaceAll(s, "  ", " ")
	}
	return s
}

// Escape percent-encodes s as AWS does: all but the unreserved characters of RFC 3986 §2.3, and
// slashes if keepSlash is set.
func Escape(s string, keepSlash bool) string {
	const hexDigits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := range len(s) {
		c := s[i]
		if unreserved(c) || keepSlash && c == '/' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~'
}
