package https

import (
	"net/http"
	"strings"

	"lodge/https/access"
)

// The cookies of ours. The prefix makes browsers keep them for one host name, over TLS (RFC 6265bis §4.1.3.2).
const (
	sessionCookie = "__Host-lodge"
	hopCookie     = "__Host-lodge-hop"
)

// ours reports whether a header is one that only the gateway may set. Many servers turn "-" and "_" into the same
// variable (CGI, RFC 3875 §4.1.18), and some any other sign too, so all spellings count.
func ours(header string) bool {
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

// stripOurs removes what a client claims in our place.
func stripOurs(h http.Header) {
	for name := range h {
		if ours(name) {
			delete(h, name)
		}
	}
}

// stripCookies removes our cookies and leaves the others as they were sent.
func stripCookies(h http.Header) {
	lines := h["Cookie"]
	kept := lines[:0:0]
	for _, line := range lines {
		if line = withoutOurCookies(line); line != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		h.Del("Cookie")
		return
	}
	h["Cookie"] = kept
}

func withoutOurCookies(line string) string {
	if !strings.Contains(line, sessionCookie) {
		return line
	}
	var kept []string
	for part := range strings.SplitSeq(line, ";") {
		if !ourCookie(part) {
			kept = append(kept, part)
		}
	}
	return strings.TrimSpace(strings.Join(kept, ";"))
}

// ourCookie reports whether one "name=value" has a name of ours, in whatever way a lenient reader would see it.
func ourCookie(pair string) bool {
	name, _, _ := strings.Cut(pair, "=")
	name = strings.Trim(name, " \t\"")
	return strings.EqualFold(name, sessionCookie) || strings.EqualFold(name, hopCookie)
}

// stripSetCookies keeps an app from setting our cookies.
func stripSetCookies(h http.Header) {
	lines := h["Set-Cookie"]
	kept := lines[:0:0]
	for _, line := range lines {
		if !ourCookie(line) {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		h.Del("Set-Cookie")
		return
	}
	h["Set-Cookie"] = kept
}

// announce says who calls, in place of what stripOurs has removed.
func announce(h http.Header, who access.Visitor) {
	switch {
	case who.VM.Known():
		h.Set("X-Lodge-Vm", who.VM.Name)
	case who.Person != "":
		h.Set("X-Lodge-User", who.Person)
		h.Set("X-Lodge-Email", who.Person)
	}
}
