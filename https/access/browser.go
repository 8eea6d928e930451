package access

import (
	"net/http"
	"slices"
	"strings"

	"lodge/https/names"
)

// CrossSite reports whether a browser sends r for a page that is not of the route's VM. All VMs are
// below one domain, which makes them "same site" to each other: SameSite cookies alone would let a
// page of one VM act in another with the visitor's session. Following a link is not cross-site.
// Programs other than browsers send none of these headers.
func (p Policy) CrossSite(r *http.Request, rt names.Route) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		return !p.Zone.SameVM(origin, rt, p.VMs)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	if isNavigation(r) {
		return false
	}
	return !p.Zone.SameVM(r.Header.Get("Referer"), rt, p.VMs)
}

// AsksForPage reports whether r is of a browser that shows the answer to a person. Browsers older than Fetch Metadata show it
// by Accept.
func AsksForPage(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	return Accepts(r, "text/html")
}

// Accepts reports whether r's Accept header names a media type.
func Accepts(r *http.Request, mediaType string) bool {
	return slices.ContainsFunc(r.Header.Values("Accept"), func(line string) bool { return strings.Contains(line, mediaType) })
}

// opensPage reports whether a redirect to another name of the VM works for r: in a tab, but not in
// a frame, and not for the resources of a page.
func opensPage(r *http.Request) bool {
	return AsksForPage(r) && r.Method == http.MethodGet && (isNavigation(r) || r.Header.Get("Sec-Fetch-Dest") == "")
}

// OpensTab reports whether r is the page load of a tab, which a redirect to another page may delay.
func OpensTab(r *http.Request) bool { return r.Method == http.MethodGet && isNavigation(r) }

// isPreflight reports whether r is a CORS preflight, which browsers send without cookies (Fetch §4.8).
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// isNavigation reports whether a browser opens a page in a tab of its own, without changing
// anything.
func isNavigation(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}
