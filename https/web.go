package https

import (
	"net/http"
	"strings"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/names"
)

// serveWeb is the handler of every request over TLS. It looks the host name up, once.
func (s *Server) serveWeb(w http.ResponseWriter, r *http.Request) {
	s.lastAnswer(w.Header(), r)
	rt, ok := s.zone.Route(r.Host, gateway.VMFrom(r.Context()), s.Directory)
	if sni, _ := s.zone.Parse(r.TLS.ServerName); !ok || rt.Host != sni.Host {
		s.say(w, r, misdirected())
		return
	}
	switch {
	case rt.Inside != "":
		s.Inside[rt.Inside].ServeHTTP(w, r)
	case r.Method == http.MethodConnect:
		s.say(w, r, noTunnel())
	case !rt.IsVM():
		s.serveRoot(w, r)
	case strings.HasPrefix(r.URL.Path, ownPath):
		s.serveOwn(w, r, rt)
	default:
		s.serveVM(w, r, rt)
	}
}

// serveVM answers a request for what runs in a VM.
func (s *Server) serveVM(w http.ResponseWriter, r *http.Request, rt names.Route) {
	who := s.visitor(r, rt)
	if decision := s.policy.Decide(r, rt, who); decision != access.Allow {
		s.turnAway(w, r, rt, decision)
		return
	}
	if rt.VM.Desired != gateway.Running {
		s.say(w, r, s.stopped(rt, who))
		return
	}
	if !s.requests.enter(rt.VM.ID) {
		s.say(w, r, busy(rt))
		return
	}
	defer s.requests.leave(rt.VM.ID)
	port := rt.Port
	if port == gateway.DefaultPort {
		var err error
		if port, err = s.finder.find(r.Context(), rt.VM); err != nil {
			s.failed(w, r, rt, who, err)
			return
		}
	}
	s.proxy(rt, who, port).ServeHTTP(w, r)
}

// visitor returns who makes the request. On a tap that is the VM: a session does not count there.
func (s *Server) visitor(r *http.Request, rt names.Route) access.Visitor {
	if vm := gateway.VMFrom(r.Context()); vm.Known() {
		return access.Visitor{VM: vm}
	}
	if s.policy.CrossSite(r, rt) {
		return access.Visitor{CrossSite: true}
	}
	person, _ := s.session(r, rt)
	return access.Visitor{Person: person}
}

// turnAway answers a request that the decision refuses.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, rt names.Route, decision access.Decision) {
	switch decision {
	case access.DenyVM:
		s.say(w, r, notForVMs(rt))
	case access.DenyCrossSite:
		s.say(w, r, notFromElsewhere(rt))
	case access.FetchLogin:
		s.startHop(w, r, rt)
	default:
		s.say(w, r, private(rt))
	}
}

// serveRoot is the host's own page. It shows nothing of the VMs.
func (s *Server) serveRoot(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" {
		s.say(w, r, noSuchPage())
		return
	}
	s.say(w, r, page{
		Status: http.StatusOK, Title: "Lodge",
		Text: []string{
			"This host keeps virtual machines. Each has a web address of its own below this one, https://<vm>." + s.Domain + ", and it is private until its owner shares it.",
			"On the host, lodge ls lists the machines, and this makes a link that opens one of them in a browser:",
		},
		Command: "lodge login <vm>", Where: "on the host",
	})
}
