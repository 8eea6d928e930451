package https

import (
	"net/http"
	"net/netip"
	"strings"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/names"
	"lodge/https/pages"
	"lodge/https/proxy"
	"lodge/https/quota"
)

// serveWeb handles every request over TLS. Its route decides all, until a change of the VM.
func (s *Server) serveWeb(w http.ResponseWriter, r *http.Request) {
	s.believeProxy(r)
	rt, ok := s.zone.Route(r.Host, gateway.VMFrom(r.Context()), s.Directory)
	w, done := s.logged(w, r, rt)
	defer done()
	s.closeIfDraining(w.Header(), r)
	s.setHSTS(w.Header(), rt)
	s.offerHTTP3(w.Header(), r)
	if sni, _ := names.Normalize(r.TLS.ServerName); !ok || rt.Host != sni {
		s.pages.Render(w, r, pages.Misdirected())
		return
	}
	if page, tooLarge := headerTooLarge(r.Header); tooLarge {
		s.pages.Render(w, r, page)
		return
	}
	switch {
	case isTunnel(r) && !isWebSocket(r, rt):
		s.pages.Render(w, r, pages.NotAProxy())
	case !isWellFormed(r):
		s.pages.Render(w, r, pages.BadRequestLine())
	case rt.Inside != "":
		s.Inside[rt.Inside].ServeHTTP(w, r)
	case rt.Service != "":
		s.serveService(w, r, rt)
	case rt.VMName == "":
		s.serveRoot(w, r)
	case r.URL.Path == pages.StartPath && r.Method == http.MethodPost:
		s.startVM(w, r, rt)
	case strings.HasPrefix(r.URL.Path, login.Prefix):
		s.login.Serve(w, r, rt)
	default:
		s.serveVM(w, r, rt)
	}
}

// serveVM handles a request for an app in a VM.
func (s *Server) serveVM(w http.ResponseWriter, r *http.Request, rt names.Route) {
	changes := s.live.changes.Load()
	who, proof, ok := s.admit(w, r, rt)
	if !ok {
		return
	}
	leave, ok := s.count(w, r, rt, who)
	if !ok {
		return
	}
	defer leave()
	if s.waker.holds(rt.VM) && s.policy.MayOpen(who, rt.VM, rt.Port) {
		if rt, ok = s.awaken(w, r, rt, who); ok {
			who, proof, ok = s.admit(w, r, rt) // what was allowed may have changed meanwhile
		}
	}
	if !ok || who.Person != 0 && rt.VM.Desired == gateway.Running && access.OpensTab(r) && s.login.StartNames(w, r, rt, proof.Session) {
		return
	}
	ctx, remove := s.live.enter(r, rt, who, proof, gateway.NoLevel)
	defer remove()
	r = r.WithContext(ctx)
	if s.live.changes.Load() != changes && !s.stillAllowed(r, rt, who, gateway.NoLevel) {
		s.notAllowed(w, r, rt, who)
		return
	}
	s.forward(w, r, rt, who)
}

// forward passes a request on to the VM, or explains why that is not possible.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, rt names.Route, who access.Visitor) {
	if rt.VM.Desired != gateway.Running {
		s.pages.Render(w, r, pages.Stopped(rt, s.mayStart(who, rt.VM), r.URL.RequestURI()))
		return
	}
	port := rt.Port
	if port == gateway.DefaultPort {
		var err error
		if port, err = s.proxy.Find(r.Context(), rt.VM); err != nil {
			s.failed(w, r, rt, who, err)
			return
		}
	}
	if err := s.proxy.Forward(w, r, proxy.Target{VM: rt.VM, Port: port}, who); err != nil {
		s.failed(w, r, rt, who, err)
	}
}

// forwardPreflight is forward for what preflight has made.
func (s *Server) forwardPreflight(w http.ResponseWriter, r *http.Request, rt names.Route) {
	if leave, ok := s.count(w, r, rt, access.Visitor{}); ok {
		defer leave()
		s.forward(w, r, rt, access.Visitor{})
	}
}

// count counts a request as one under way until leave. It is false once a request that is over a limit
// is answered.
func (s *Server) count(w http.ResponseWriter, r *http.Request, rt names.Route, who access.Visitor) (leave func(), ok bool) {
	leave, over := s.quota.Enter(rt.VM.ID, unitOf(r, who))
	if over != quota.None {
		s.refuse(w, r, rt, over)
		return nil, false
	}
	return leave, true
}

// admit returns who makes the request, and what proves it. It is false once the request is
// answered: the visitor may not open the page, or it is a preflight.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, rt names.Route) (access.Visitor, login.Proof, bool) {
	who, proof := s.login.Visitor(r, rt)
	switch decision := s.policy.Decide(r, rt, who); {
	case decision == access.Allow:
		return who, proof, true
	case decision == access.Preflight && s.login.SeenFrom(r, rt):
		s.forwardPreflight(preflightWriter(w), preflight(r), rt)
	case proof.BadToken:
		s.pages.Render(w, r, s.login.RefuseSecret(r, pages.BadToken(rt)))
	case decision == access.DenyStranger && who == (access.Visitor{}) && s.login.StartEnter(w, r, rt):
	default:
		s.turnAway(w, r, rt, who, decision)
	}
	return who, proof, false
}

// stillAllowed reports whether the decision to let a request through holds now.
func (s *Server) stillAllowed(r *http.Request, rt names.Route, who access.Visitor, level gateway.Level) bool {
	if !s.allows(rt.Name, rt.VM.Identity, who, level) {
		return false
	}
	now, _ := s.login.Visitor(r, rt)
	return now == who
}

// unitOf returns the unit by which the quota counts the request.
func unitOf(r *http.Request, who access.Visitor) quota.Visitor {
	if who.VM.Known() {
		return quota.Visitor{Peer: gateway.Peer{VM: who.VM.ID}}
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr) // none: a pipe
	return quota.Visitor{Person: who.Mail, Peer: gateway.PeerAt(from.Addr())}
}

// refuse answers a request that is over a limit.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, rt names.Route, over quota.Over) {
	s.metrics.refused.WithLabelValues(string(over)).Inc()
	if over == quota.OfVisitor {
		s.pages.Render(w, r, pages.TooMany(rt))
		return
	}
	s.pages.Render(w, r, pages.Busy(rt))
}

// turnAway answers a request that was not allowed.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, rt names.Route, who access.Visitor, decision access.Decision) {
	switch decision {
	case access.DenyVM:
		s.pages.Render(w, r, pages.DeniedToVM(rt))
	case access.DenyCrossSite:
		s.pages.Render(w, r, pages.CrossSite(rt))
	case access.FetchLogin:
		s.login.StartHandoff(w, r, rt)
	default:
		s.login.Want(r, rt)
		s.notAllowed(w, r, rt, who)
	}
}

// notAllowed answers a visitor who may not open the page, or no more.
func (s *Server) notAllowed(w http.ResponseWriter, r *http.Request, rt names.Route, who access.Visitor) {
	if who.Person != 0 && s.known(who.Person) {
		s.pages.Render(w, r, s.login.Refused(r, rt, who.Mail, rt.Host, r.URL.RequestURI()))
		return
	}
	s.pages.Render(w, r, s.login.Private(r, rt))
}

// serveService passes a request on to a service of the host. All of them are shared like those to
// one VM, but for those to a VM's bucket by its name: they count as the VM's.
func (s *Server) serveService(w http.ResponseWriter, r *http.Request, rt names.Route) {
	var of gateway.ID
	if rt.IsVM() {
		of = rt.VM.ID
	}
	leave, over := s.quota.Enter(of, unitOf(r, access.Visitor{VM: gateway.VMFrom(r.Context())}))
	if over != quota.None {
		s.metrics.refused.WithLabelValues(string(over)).Inc()
		w.Header().Set("Retry-After", "1")
		http.Error(w, "Too many requests are under way. Please reduce your request rate.", http.StatusServiceUnavailable)
		return
	}
	defer leave()
	if rt.Bucket != "" && strings.HasPrefix(r.URL.Path, login.Prefix) && r.Header.Get("Authorization") == "" && !r.URL.Query().Has("X-Amz-Signature") {
		s.login.Serve(w, r, rt)
		return
	}
	s.Services[rt.Service].ServeHTTP(w, r)
}

// serveRoot serves the host's own page, and what Config.Root has.
func (s *Server) serveRoot(w http.ResponseWriter, r *http.Request) {
	if handler, ok := s.Root[r.URL.Path]; ok {
		handler.ServeHTTP(w, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, login.Prefix) {
		s.apex.Serve(w, r)
		return
	}
	if r.URL.Path != "/" {
		s.pages.Render(w, r, pages.NotFound())
		return
	}
	_, loggedIn := s.apex.Visitor(r)
	s.pages.Render(w, r, pages.Root(s.Domain, loggedIn))
}
