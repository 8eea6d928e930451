package https

import (
	"net/http"

	"lodge/gateway"
)

// RedirectPages returns a handler for plain HTTP on taps: it redirects the names of VMs and public services to https, and
// passes all other requests to next.
func (s *Server) RedirectPages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rt, ok := s.zone.Route(r.Host, gateway.VMFrom(r.Context()), s.Directory)
		if _, passed := s.passedThrough(r.Host); ok && (rt.IsVM() || rt.Service != "") || passed {
			s.serveRedirect(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// portFor returns the port of https for the client of r: on taps it is always 443.
func (s *Server) portFor(r *http.Request) int {
	if gateway.VMFrom(r.Context()).Known() {
		return 443
	}
	return s.Port
}
