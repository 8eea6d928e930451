package https

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

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
		s.notAllowed(w, r, rt, who)
		return
	}
	// a body that ends too early often ends with the connection, but not always
	if !errors.Is(err, proxy.ErrBadBody) && (r.Context().Err() != nil || errors.Is(err, context.Canceled)) {
		w.WriteHeader(http.StatusBadGateway) // the client has gone
		return
	}
	s.Logger.With(gateway.LogVM(rt.VM.Identity)).Debug("web request failed", "host", rt.Host, "method", r.Method, "err", err)
	s.pages.Render(w, r, s.explain(r, rt, who, err))
}

// explain returns the page for an error from the proxy.
func (s *Server) explain(r *http.Request, rt names.Route, who access.Visitor, err error) pages.Page {
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
	mayUse := s.policy.People.Level(who.Person, rt.VM).Covers(gateway.Use)
	return pages.NothingListens(rt, mayUse, s.openPorts(r, rt, who))
}

// openPorts links to the ports of a VM that listen and that the visitor may open. No others are looked for:
// a stranger's request does not search the VM.
func (s *Server) openPorts(r *http.Request, rt names.Route, who access.Visitor) (open []pages.Link) {
	if rt.Guests {
		return nil
	}
	ports := proxy.CommonPorts()
	for _, share := range rt.VM.Shares {
		ports = append(ports, share.Port)
	}
	slices.Sort(ports)
	ports = slices.DeleteFunc(slices.Compact(ports), func(port uint16) bool {
		return port == gateway.DefaultPort || port == rt.Port || !s.policy.MayOpen(who, rt.VM, port)
	})
	if len(ports) == 0 {
		return nil
	}
	listening, _ := s.proxy.Listening(r.Context(), rt.VM, ports) // none: the page lists none
	for _, port := range listening {
		open = append(open, pages.Link{Text: fmt.Sprintf("port %d", port), URL: names.Origin(s.zone.Host(rt.VM.Name, port), names.PortSeen(r))})
	}
	return open
}
