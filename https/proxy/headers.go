package proxy

import (
	"fmt"
	"net/http"
	"strings"

	"lodge/https/access"
)

// isIdentityHeader reports whether only the gateway may set a header. Many servers map "-" and "_"
// to the same variable (CGI, RFC 3875 §4.1.18), and some map other characters too, so every
// spelling counts.
func isIdentityHeader(header string) bool {
	var spelled [32]byte // longer than any of the names
	n := copy(spelled[:], header)
	for i, c := range spelled[:n] {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case 'A' <= c && c <= 'Z':
			spelled[i] = c + 'a' - 'A'
		default:
			spelled[i] = '-'
		}
	}
	name := string(spelled[:n]) // on the stack
	return strings.HasPrefix(name, "x-lodge-") || strings.HasPrefix(name, "x-forwarded-") || isOtherIdentityHeader(name)
}

// isOtherIdentityHeader reports whether a name, in lower case, is one of those without a common prefix.
// Other gateways set them, so apps and frameworks trust them; Proxy becomes HTTP_PROXY in CGI programs.
func isOtherIdentityHeader(name string) bool {
	switch name {
	case "x-lodge", "forwarded", "x-real-ip", "remote-user", "x-remote-user", "true-client-ip", "cf-connecting-ip", "x-client-ip",
		"x-original-url", "proxy":
		return true
	}
	return false
}

// stripIdentityHeaders removes the identity headers that a client sent.
func stripIdentityHeaders(h http.Header) {
	for name := range h {
		if isIdentityHeader(name) {
			delete(h, name)
		}
	}
}

// setIdentityHeaders names the visitor to the app.
func setIdentityHeaders(h http.Header, who access.Visitor) {
	switch {
	case who.VM.Known():
		h.Set("X-Lodge-Vm", who.VM.Name)
	case who.Token != 0:
		h.Set("X-Lodge-Token", who.TokenID)
	case who.Person != 0:
		h.Set("X-Lodge-User", who.Mail)
		h.Set("X-Lodge-Email", who.Mail)
	}
}

// encodeQuery percent-encodes what a target may not have (RFC 3986 §3.4), and net/http passes on as
// it is: bytes above ASCII, and "#", which other parsers take for the end of the query.
func encodeQuery(query string) string {
	allowed := func(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }
	first := 0
	for first < len(query) && allowed(query[first]) {
		first++
	}
	if first == len(query) {
		return query
	}
	var b strings.Builder
	b.WriteString(query[:first])
	for _, c := range []byte(query[first:]) {
		if allowed(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// ignoreOddUpgrade removes an Upgrade that names no protocol (RFC 9110 §7.8 allows to ignore any).
// ReverseProxy returns an error for it that looks like one of the app.
func ignoreOddUpgrade(h http.Header) {
	for _, line := range h["Upgrade"] {
		for _, c := range []byte(line) {
			if c < ' ' || c > '~' {
				h.Del("Upgrade")
				return
			}
		}
	}
}
