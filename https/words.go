package https

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/names"
)

// What the pages say. Strangers learn that a name exists and is private, which the handshake has told them already;
// only the owner learns of ports and states.

func misdirected() page {
	return page{
		Status: http.StatusMisdirectedRequest, Kind: gateway.KindNotFound, Title: "No such name here",
		Text: []string{"The host name of the request is not the one of its connection, or nothing here has that name."},
	}
}

func noSuchPage() page {
	return page{Status: http.StatusNotFound, Kind: gateway.KindNotFound, Title: "No such page"}
}

func noTunnel() page {
	return page{Status: http.StatusNotImplemented, Kind: gateway.KindInvalid, Title: "This is not a forward proxy"}
}

func ourFault() page {
	return page{
		Status: http.StatusInternalServerError, Kind: gateway.KindInternal, Title: "This did not work",
		Text: []string{"The host could not do that. Its log says why:"}, Command: "journalctl -u lodged", Where: "on the host",
	}
}

func private(rt names.Route) page {
	return page{
		Status: http.StatusUnauthorized, Kind: gateway.KindDenied, Title: "This page is private",
		Text:    []string{"It has not been shared with you. If it is yours, make a link that logs you in, once, and open it in this browser:"},
		Command: "lodge login " + rt.VM.Name, Where: "on the host",
	}
}

func notForVMs(rt names.Route) page {
	return page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "This page is private",
		Text:    []string{"A VM reaches its own pages, and those of others that are public. The owner can share this one:"},
		Command: shareCommand(rt), Where: "on the host",
	}
}

func notFromElsewhere(rt names.Route) page {
	return page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "Refused on behalf of another page",
		Text:    []string{"A page elsewhere asked for this with your login. Private pages answer only to themselves. To let others use it, share it:"},
		Command: shareCommand(rt), Where: "on the host",
	}
}

func shareCommand(rt names.Route) string {
	if rt.Port == gateway.DefaultPort {
		return "lodge share " + rt.VM.Name + " public"
	}
	return fmt.Sprintf("lodge share %s %d public", rt.VM.Name, rt.Port)
}

func confirm(rt names.Route, token string) page {
	return page{
		Status: http.StatusOK, Title: "Open " + rt.VM.Name,
		Text:  []string{"The link logs this browser in for 30 days. It works once."},
		Token: token,
	}
}

func usedUp(rt names.Route) page {
	return page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "This link does not work any more",
		Text:    []string{"A link works once, for 15 minutes. Make a new one:"},
		Command: "lodge login " + rt.VM.Name, Where: "on the host",
	}
}

func hopFailed(rt names.Route) page {
	return page{
		Status: http.StatusForbidden, Kind: gateway.KindDenied, Title: "The login did not arrive",
		Text:  []string{"This browser did not ask for it a moment ago, or it does not keep cookies. Try again:"},
		Links: []link{{rt.Host, "/"}},
	}
}

func (s *Server) stopped(rt names.Route, who access.Visitor) page {
	p := page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " is stopped",
		Text: []string{"The page is here again once the VM runs."}, Refresh: 10,
	}
	if p.Owner = s.policy.IsOwner(who.Person); p.Owner {
		p.Command, p.Where = "lodge start "+rt.VM.Name, "on the host"
		p.Text = []string{"Its disk and files are kept. Start it, and this page opens by itself:"}
	}
	return p
}

func busy(rt names.Route) page {
	return page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " is busy",
		Text: []string{"Too many requests wait for its answer. This page opens by itself when there is room."}, Refresh: 10,
	}
}

func starting(rt names.Route) page {
	return page{
		Status: http.StatusServiceUnavailable, Kind: gateway.KindUnavailable, Title: rt.VM.Name + " does not answer yet",
		Text: []string{"It may still be starting. This page opens by itself as soon as it answers."}, Refresh: 3,
	}
}

func broken(rt names.Route) page {
	return page{
		Status: http.StatusBadGateway, Kind: gateway.KindUnavailable, Title: "No answer from the app in " + rt.VM.Name,
		Text: []string{"It took the request, but ended the connection without an answer, or with one that is not HTTP."},
	}
}

// why turns an error of finding, dialling or asking the VM into a page.
func (s *Server) why(ctx context.Context, rt names.Route, who access.Visitor, err error) page {
	if errors.Is(err, errGone) {
		return starting(rt)
	}
	var op *net.OpError
	dialled := errors.Is(err, errSilent) || errors.Is(err, errAbsent) || errors.As(err, &op) && op.Op == "dial"
	switch {
	case !dialled:
		return broken(rt)
	case errors.Is(err, errAbsent) || !errors.Is(err, errSilent) && errors.Is(sortDialError(err), errAbsent):
		return starting(rt)
	}
	return s.silent(ctx, rt, who)
}

// silent is for a VM that runs but has nothing at the port. Its owner learns where there is something.
func (s *Server) silent(ctx context.Context, rt names.Route, who access.Visitor) page {
	p := page{
		Status: http.StatusBadGateway, Kind: gateway.KindUnavailable, Title: "Nothing listens in " + rt.VM.Name,
		Text: []string{"This page opens by itself the moment something does."}, Refresh: 3,
	}
	if rt.Port != gateway.DefaultPort {
		p.Title = fmt.Sprintf("Nothing listens on port %d of %s", rt.Port, rt.VM.Name)
	}
	if p.Owner = s.policy.IsOwner(who.Person); !p.Owner {
		return p
	}
	if rt.Port == gateway.DefaultPort {
		p.Text = append(p.Text, "It leads to the first of the ports 80, 8000, 8080, 3000, 5000 and 5173 that is open.")
	}
	p.Text = append(p.Text, "An app that listens on 127.0.0.1 cannot be reached from here: let it listen on 0.0.0.0. A server to try with:")
	p.Command, p.Where = fmt.Sprintf("python3 -m http.server %d", cmp.Or(rt.Port, 8000)), "in the VM"
	open, _ := s.finder.listening(ctx, rt.VM, commonPorts()) // none is an answer too
	for _, port := range open {
		p.Links = append(p.Links, link{fmt.Sprintf("port %d", port), s.URL(rt.VM, port)})
	}
	return p
}

// commonPorts are where web servers and development tools listen; the page names those that are open.
func commonPorts() []uint16 {
	ports := []uint16{80, 81, 443, 1313, 1337, 4000, 4200, 4321, 5601, 6006, 7860, 8501, 8787, 8888, 11434}
	for _, span := range [][2]uint16{{3000, 3010}, {5000, 5005}, {5173, 5180}, {8000, 8010}, {8080, 8090}, {9000, 9010}, {9090, 9093}} {
		for port := span[0]; port <= span[1]; port++ {
			ports = append(ports, port)
		}
	}
	return ports
}
