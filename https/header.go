package https

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"lodge/https/pages"
)

// Limits on a request's header. net/http closes an HTTP/2 connection above its limit, which a browser
// shows as an error without a cause: so that one is higher, for a page that explains and repairs.
const (
	maxHeaderBytes = 1 << 20  // that net/http reads: all the cookies that a browser keeps for one domain
	maxCookieBytes = 32 << 10 // of Cookie
	maxOtherBytes  = 64 << 10 // of all else
)

// headerTooLarge returns the page for a header above the limits.
func headerTooLarge(h http.Header) (pages.Page, bool) {
	cookies, other := 0, 0
	for name, lines := range h {
		for _, line := range lines {
			if name == "Cookie" {
				cookies += len(line)
			} else {
				other += len(name) + len(line)
			}
		}
	}
	switch {
	case cookies > maxCookieBytes:
		return pages.TooManyCookies(), true
	case other > maxOtherBytes:
		return pages.HeaderTooLarge(), true
	}
	return pages.Page{}, false
}

// isWellFormed reports whether the request line of r can be passed on (RFC 9112 §3): the method is a
// token, and the target a path, alone or in a URL, or the "*" of OPTIONS. net/http accepts URLs
// without a path, such as "x:80", and any method in HTTP/2, with spaces too.
func isWellFormed(r *http.Request) bool {
	target := r.URL.RequestURI()
	return httpguts.ValidHeaderFieldName(r.Method) && (strings.HasPrefix(target, "/") || target == "*" && r.Method == http.MethodOptions)
}
