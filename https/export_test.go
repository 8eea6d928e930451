package https

import (
	"net/http"

	"lodge/gateway"
	"lodge/https/access"
)

// Decides reports whether r is let through to its VM, as serveVM decides it.
func (s *Server) Decides(r *http.Request) bool {
	rt, ok := s.zone.Route(r.Host, gateway.Identity{}, s.Directory)
	if !ok {
		return false
	}
	who, _ := s.login.Visitor(r, rt)
	return s.policy.Decide(r, rt, who) == access.Allow
}
