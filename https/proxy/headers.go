package proxy

import (
	"net/http"
	"strings"

	"lodge/https/access"
)

// isIdentityHeader reports whether only the gateway may set a header. Many servers map "-" and "_"
// to the same variable (CGI, RFC 3875 §4.1.18), and some map other characters too, so every
// spelling counts.
func isIdentityHeader(header string) bool {
	name := strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			return c
		case 'A' <= c && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '-'
	}, header)
	return strings.HasPrefix(name, "x-lodge-") || strings.HasPrefix(name, "x-forwarded-") ||
		name == "x-lodge" || name == "forwarded" || name == "x-real-ip"
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
	case who.Person != "":
		h.Set("X-Lodge-User", who.Person)
		h.Set("X-Lodge-Email", who.Person)
	}
}
