package https

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/conns"
	"lodge/https/names"
	"lodge/https/pages"
	"lodge/https/proxy"
)

// failed answers in place of a VM that did not.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, rt names.Route, who access.Visitor, err error) {
	if errors.Is(context.Cause(r.Context()), errRevoked) {
		s.pages.Render(w, r, pages.Private(rt))
		return
	}
	// a body that ends too early often ends with the connection, but not always
	if !errors.Is(err, proxy.ErrBadBody) && (r.Context().Err() != nil || errors.Is(err, context.Canceled)) {
		w.WriteHeader(http.StatusBadGateway) // the client has gone
		return
	}
	s.Logger.With(gateway.LogVM(rt.VM.Identity)).Debug("web request failed", "host", rt.Host, "method", r.Method, "err", err)
	s.pages.Render(w, r, s.explain(r.Context(), rt, who, err))
}

// explain returns the page for an error from the proxy.
func (s *Server) explain(ctx context.Context, rt names.Route, who access.Visitor, err error) pages.Page {
	switch {
	case errors.Is(err, conns.ErrSlow):
		return pages.SlowBody()
	case errors.Is(err, proxy.ErrBadBody):
		return pages.BadBody()
	case errors.Is(err, proxy.ErrNoRoute):
		return pages.NoAnswer(rt)
	case !errors.Is(err, proxy.ErrRefused):
		return pages.BadAnswer(rt)
	}
	if !s.policy.Manages(who, rt.VM) {
		return pages.NothingListens(rt, false, nil)
	}
	var open []pages.Link
	ports, _ := s.proxy.Listening(ctx, rt.VM, proxy.CommonPorts()) // none: the page lists none
	for _, port := range ports {
		open = append(open, pages.Link{Text: fmt.Sprintf("port %d", port), URL: s.URL(rt.VM, port)})
	}
	return pages.NothingListens(rt, true, open)
}
