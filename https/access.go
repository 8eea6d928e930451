package https

import (
	"net/http"
	"slices"
	"strings"

	"lodge/gateway"
	"lodge/https/names"
)

// visitor says who makes the request. On a tap that is the VM and nobody else: a session cookie does not count there.
func (s *Server) visitor(r *http.Request, rt names.Route) visitor {
	if vm := gateway.VMFrom(r.Context()); vm.Known() {
		return visitor{vm: vm}
	}
	if s.foreign(r, rt) {
		return visitor{}
	}
	person, ok := s.session(r, rt)
	if !ok {
		return visitor{}
	}
	return visitor{person: person}
}

// mayOpen is the whole rule: public is for anyone, the owner opens everything, and a VM its own names.
func (s *Server) mayOpen(who visitor, rt names.Route) bool {
	switch {
	case rt.VM.Visibility(rt.Port) == gateway.Public:
		return true
	case who.vm.Known():
		return who.vm.ID == rt.VM.ID
	default:
		return s.isOwner(who.person)
	}
}

func (s *Server) isOwner(person string) bool { return person != "" && person == s.Owner }

// foreign reports whether a browser makes the request on behalf of a page elsewhere. All VMs are below one domain, which
// makes them "same site" to each other: SameSite cookies alone would let a page of one VM act in another with the
// visitor's session. Following a link is not foreign. What is no browser sends none of these headers.
func (s *Server) foreign(r *http.Request, rt names.Route) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		return !s.zone.SameVM(origin, rt.Name)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	if isNavigation(r) {
		return false
	}
	return !s.zone.SameVM(r.Header.Get("Referer"), rt.Name)
}

// isNavigation reports whether a browser opens a page in a tab of its own, without changing anything.
func isNavigation(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// wantsPage reports whether a person is going to look at the answer. Browsers older than fetch metadata say it with Accept.
func wantsPage(r *http.Request) bool {
	if r.Header.Get("Sec-Fetch-Mode") != "" {
		return r.Header.Get("Sec-Fetch-Mode") == "navigate"
	}
	return accepts(r, "text/html")
}

func accepts(r *http.Request, mediaType string) bool {
	return slices.ContainsFunc(r.Header.Values("Accept"), func(line string) bool { return strings.Contains(line, mediaType) })
}

// turnAway answers who may not open the name: a browser without a session here is sent to the plain name, which may have one; others get the reason.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, rt names.Route, who visitor) {
	switch {
	case who.vm.Known():
		s.say(w, r, notForVMs(rt))
	case s.foreign(r, rt):
		s.say(w, r, notFromElsewhere(rt))
	case rt.Host != rt.Plain && wantsPage(r) && r.Method == http.MethodGet && (isNavigation(r) || r.Header.Get("Sec-Fetch-Dest") == ""):
		s.startHop(w, r, rt)
	default:
		s.say(w, r, private(rt))
	}
}
