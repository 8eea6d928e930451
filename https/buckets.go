package https

import (
	"context"
	"net/http"

	"lodge/gateway"
	"lodge/https/access"
)

// EnterBucket returns what the login, or the link, of a request opens of the bucket at its host
// name: gateway.View to list and to read, gateway.Use also to write. The context ends with that;
// call leave after the request. The package of the objects calls it, since it knows which requests
// need no login.
func (s *Server) EnterBucket(r *http.Request) (ctx context.Context, level gateway.Level, leave func()) {
	changes := s.live.changes.Load()
	none := func() {}
	rt, ok := s.zone.Route(r.Host, gateway.VMFrom(r.Context()), s.Directory)
	if !ok || rt.Bucket == "" || !rt.IsVM() {
		return r.Context(), gateway.NoLevel, none
	}
	who, proof := s.login.Visitor(r, rt)
	if level = s.policy.BucketLevel(who, rt); level == gateway.NoLevel {
		return r.Context(), level, none
	}
	ctx, leave = s.live.enter(r, rt, who, proof, level)
	if s.live.changes.Load() != changes && !s.stillAllowed(r, rt, who, level) {
		leave()
		return r.Context(), gateway.NoLevel, none
	}
	return ctx, level, leave
}

// TurnAwayFromBucket answers a browser's page load at a bucket's name that opens nothing: with the
// way to a login, or with a page that is the same whether there is such a bucket. It is false for
// all else, which it does not answer.
func (s *Server) TurnAwayFromBucket(w http.ResponseWriter, r *http.Request) bool {
	rt, ok := s.zone.Route(r.Host, gateway.VMFrom(r.Context()), s.Directory)
	if !ok || rt.Bucket == "" || r.Method != http.MethodGet || !access.AsksForPage(r) || gateway.VMFrom(r.Context()).Known() {
		return false
	}
	who, _ := s.login.Visitor(r, rt)
	if who == (access.Visitor{}) && s.login.StartEnter(w, r, rt) {
		return true
	}
	s.notAllowed(w, r, rt, who)
	return true
}
