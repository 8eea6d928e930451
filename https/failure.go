package https

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"lodge/https/access"
	"lodge/https/names"
	"lodge/https/pages"
)

// failed answers a request that the VM did not answer.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, rt names.Route, who access.Visitor, err error) {
	if r.Context().Err() != nil || errors.Is(err, context.Canceled) {
		w.WriteHeader(http.StatusBadGateway) // the client has gone
		return
	}
	s.Logger.Debug("request failed", "vm", rt.VM.Name, "host", rt.Host, "method", r.Method, "err", err)
	s.pages.Render(w, r, s.explain(r.Context(), rt, who, err))
}

// explain returns the page for an error of finding, dialling or asking the VM.
func (s *Server) explain(ctx context.Context, rt names.Route, who access.Visitor, err error) pages.Page {
	if errors.Is(err, errGone) {
		return pages.NoAnswer(rt)
	}
	var op *net.OpError
	dialled := errors.Is(err, errSilent) || errors.Is(err, errAbsent) || errors.As(err, &op) && op.Op == "dial"
	switch {
	case !dialled:
		return pages.BadAnswer(rt)
	case errors.Is(err, errAbsent) || !errors.Is(err, errSilent) && errors.Is(sortDialError(err), errAbsent):
		return pages.NoAnswer(rt)
	}
	if !s.policy.IsOwner(who.Person) {
		return pages.NothingListens(rt, false, nil)
	}
	var open []pages.Link
	ports, _ := s.finder.listening(ctx, rt.VM, commonPorts()) // none is an answer too
	for _, port := range ports {
		open = append(open, pages.Link{Text: fmt.Sprintf("port %d", port), URL: s.URL(rt.VM, port)})
	}
	return pages.NothingListens(rt, true, open)
}

// commonPorts are where web servers and development tools listen; the owner's page names those that are open.
func commonPorts() []uint16 {
	ports := []uint16{80, 81, 443, 1313, 1337, 4000, 4200, 4321, 5601, 6006, 7860, 8501, 8787, 8888, 11434}
	for _, span := range [][2]uint16{{3000, 3010}, {5000, 5005}, {5173, 5180}, {8000, 8010}, {8080, 8090}, {9000, 9010}, {9090, 9093}} {
		for port := span[0]; port <= span[1]; port++ {
			ports = append(ports, port)
		}
	}
	return ports
}
