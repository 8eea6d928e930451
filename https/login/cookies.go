package login

import (
	"net/http"
	"slices"
	"strings"

	"lodge/https/login/browser"
	"lodge/https/names"
)

// The cookies of the gateway, beside browser.BindingCookie. The prefix makes browsers keep them for one host
// name, over TLS (RFC 6265bis §4.1.3.2).
const (
	sessionCookie = "__Host-lodge"
	visitCookie   = "__Host-lodge-visit"
	triedCookie   = "__Host-lodge-tried" // the domain has no login of this browser, as of a moment ago
)

// StripCookies removes the gateway's cookies from a request for a VM and leaves the others as they
// were sent.
func StripCookies(h http.Header) {
	lines := h["Cookie"]
	kept := lines[:0:0]
	for _, line := range lines {
		if line = withoutOwnCookies(line); line != "" {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		h.Del("Cookie")
		return
	}
	h["Cookie"] = kept
}

func withoutOwnCookies(line string) string {
	if !strings.Contains(line, "__") { // in no spelling of the names
		return line
	}
	var kept []string
	for part := range strings.SplitSeq(line, ";") {
		if !ownCookie(part) {
			kept = append(kept, part)
		}
	}
	return strings.TrimSpace(strings.Join(kept, ";"))
}

// ownCookie reports whether one "name=value" has the name of a cookie of the gateway, as a lenient
// reader would see it.
func ownCookie(pair string) bool {
	name, _, _ := strings.Cut(pair, "=")
	name = strings.Trim(name, " \t\"")
	return slices.ContainsFunc([]string{sessionCookie, browser.BindingCookie, visitCookie, triedCookie}, func(own string) bool { return strings.EqualFold(name, own) })
}

// StripSetCookies keeps an app from setting the gateway's cookies.
func StripSetCookies(h http.Header) {
	lines := h["Set-Cookie"]
	kept := lines[:0:0]
	for _, line := range lines {
		if !ownCookie(line) {
			kept = append(kept, line)
		}
	}
	if len(kept) == 0 {
		h.Del("Set-Cookie")
		return
	}
	h["Set-Cookie"] = kept
}

// NarrowSetCookies removes Domain from the cookies that an app sets for more than its own VM, which
// makes them cookies of the app's host name: an app cannot set its siblings' cookies, nor so many that
// no request to them fits. What a page sets by JavaScript passes no gateway: see docs/cookies.md.
func NarrowSetCookies(h http.Header, name names.Name) {
	for i, line := range h["Set-Cookie"] {
		parts := strings.Split(line, ";")
		kept := parts[:1]
		for _, attribute := range parts[1:] {
			key, value, _ := strings.Cut(attribute, "=")
			if !strings.EqualFold(strings.TrimSpace(key), "Domain") || ownDomain(value, name) {
				kept = append(kept, attribute)
			}
		}
		h["Set-Cookie"][i] = strings.Join(kept, ";")
	}
}

// ownDomain reports whether a cookie's domain is the host name itself, or the VM's plain name, or below
// that. RFC 6265 §5.2.3 ignores a dot in front.
func ownDomain(domain string, name names.Name) bool {
	domain = strings.ToLower(strings.TrimPrefix(strings.Trim(domain, " \t"), "."))
	return domain != "" && (domain == name.Host || domain == name.Plain || strings.HasSuffix(domain, "."+name.Plain))
}
