package https

import (
	"context"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/names"
	"lodge/https/pages"
)

// Paths of ours on every VM's names. They never reach the VM.
const (
	ownPath   = "/.lodge/"
	loginPath = ownPath + "login" // ?token=: a page with a button, which logs in
	hopPath   = ownPath + "hop"   // on the plain name: ?to=&for=&path=: sends a logged-in browser on to another name of the VM
	enterPath = ownPath + "enter" // on that other name: ?code=&path=: logs in there
)

// maxFormBytes limits the one form there is.
const maxFormBytes = 4 << 10

// LoginURL makes a link that logs person in to the VM's plain name, once, within 15 minutes. The empty person is the
// owner. Errors: KindNotFound for a VM that is gone, KindDenied for a person who may not open it.
func (s *Server) LoginURL(ctx context.Context, id gateway.ID, person string) (string, error) {
	m, ok := s.Directory.ByID(id)
	if !ok || m.Desired == gateway.Removed {
		return "", gateway.Errorf(gateway.KindNotFound, "the VM is gone")
	}
	if person == "" {
		person = s.Owner
	}
	if !s.policy.IsOwner(person) {
		return "", gateway.Errorf(gateway.KindDenied, "%s may not open %s", person, m.Name).
			WithHint("Only the owner, %s, can log in.", s.Owner)
	}
	token, err := s.sessions.issue(ctx, kindLink, id, grant{Person: person}, linkLife)
	if err != nil {
		return "", err
	}
	return s.URL(m, gateway.DefaultPort) + loginPath + "?token=" + token, nil
}

// serveOwn answers what is below ownPath. People log in here; VMs have no need to.
func (s *Server) serveOwn(w http.ResponseWriter, r *http.Request, rt names.Route) {
	isGet := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch path := r.URL.Path; {
	case gateway.VMFrom(r.Context()).Known():
		s.pages.Render(w, r, pages.DeniedToVM(rt))
	case path == loginPath && isGet:
		s.pages.Render(w, r, pages.LoginButton(rt, r.URL.Query().Get("token")))
	case path == loginPath && r.Method == http.MethodPost:
		s.login(w, r, rt)
	case path == hopPath && isGet:
		s.hop(w, r, rt)
	case path == enterPath && isGet:
		s.enter(w, r, rt)
	default:
		s.pages.Render(w, r, pages.NotFound())
	}
}

// login turns a link's token into a session. Only the form's POST does that: programs that look at links before a
// person does (mail filters, chat previews) would use the token up with a GET.
func (s *Server) login(w http.ResponseWriter, r *http.Request, rt names.Route) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if s.policy.CrossSite(r, rt) {
		s.pages.Render(w, r, pages.CrossSite(rt))
		return
	}
	vm, g, err := s.sessions.take(r.Context(), kindLink, r.PostFormValue("token"))
	if err != nil || vm != rt.VM.ID {
		s.refuseLogin(w, r, rt, pages.LinkUsed(rt), err)
		return
	}
	s.startSession(w, r, rt, g.Person, "/")
}

// refuseLogin shows p, or says that it is our fault.
func (s *Server) refuseLogin(w http.ResponseWriter, r *http.Request, rt names.Route, p pages.Page, err error) {
	if err != nil && gateway.KindOf(err) != gateway.KindNotFound {
		s.Logger.Error("login failed", "vm", rt.VM.Name, "err", err)
		p = pages.InternalError()
	}
	s.pages.Render(w, r, p)
}

// startSession logs a person in at the route's name and goes on to path.
func (s *Server) startSession(w http.ResponseWriter, r *http.Request, rt names.Route, person, path string) {
	secret, err := s.sessions.issue(r.Context(), kindSession, rt.VM.ID, grant{Person: person, Host: rt.Host}, sessionLife)
	if err != nil {
		s.refuseLogin(w, r, rt, pages.InternalError(), err)
		return
	}
	setCookie(w, sessionCookie, secret, sessionLife)
	s.Logger.Info("person logged in", "vm", rt.VM.Name, "host", rt.Host, "remote", r.RemoteAddr)
	sendTo(w, http.StatusSeeOther, path)
}

// startHop sends a browser to the plain name of the VM to fetch a login for this one. The cookie binds what comes back to
// this browser, so a link made by someone else logs nobody in.
func (s *Server) startHop(w http.ResponseWriter, r *http.Request, rt names.Route) {
	secret := newSecret()
	if cookie, err := r.Cookie(hopCookie); err == nil { // a second tab shares it
		if _, ok := secretHash(cookie.Value); ok {
			secret = cookie.Value
		}
	}
	setCookie(w, hopCookie, secret, hopLife)
	query := url.Values{"to": {rt.Host}, "for": {bound(secret)}, "path": {r.URL.RequestURI()}}
	sendTo(w, http.StatusFound, names.Origin(rt.Plain, names.PortSeen(r))+hopPath+"?"+query.Encode())
}

// hop sends a browser that is logged in at the plain name back to another name of the same VM, with a one-time code.
func (s *Server) hop(w http.ResponseWriter, r *http.Request, rt names.Route) {
	query := r.URL.Query()
	to, ok := s.zone.Parse(query.Get("to"))
	person, loggedIn := s.session(r, rt)
	switch {
	case !ok || to.VMName != rt.VMName || to.Host == rt.Host || rt.Host != rt.Plain:
		s.pages.Render(w, r, pages.NotFound())
		return
	case !loggedIn || !s.policy.MayOpen(access.Visitor{Person: person}, rt.VM, to.Port):
		s.pages.Render(w, r, pages.Private(rt))
		return
	}
	code, err := s.sessions.issue(r.Context(), kindHop, rt.VM.ID, grant{Person: person, Host: to.Host, Bound: query.Get("for")}, hopLife)
	if err != nil {
		s.refuseLogin(w, r, rt, pages.InternalError(), err)
		return
	}
	back := url.Values{"code": {code}, "path": {query.Get("path")}}
	sendTo(w, http.StatusFound, names.Origin(to.Host, names.PortSeen(r))+enterPath+"?"+back.Encode())
}

// enter turns the code of a hop into a session at this name.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, rt names.Route) {
	cookie, err := r.Cookie(hopCookie)
	if err != nil {
		s.pages.Render(w, r, pages.LoginFailed(rt))
		return
	}
	vm, g, err := s.sessions.take(r.Context(), kindHop, r.URL.Query().Get("code"))
	if err != nil || vm != rt.VM.ID || g.Host != rt.Host || g.Bound != bound(cookie.Value) {
		s.refuseLogin(w, r, rt, pages.LoginFailed(rt), err)
		return
	}
	setCookie(w, hopCookie, "", 0)
	s.startSession(w, r, rt, g.Person, localPath(r.URL.Query().Get("path")))
}

// bound is what other names see of a browser's hop cookie.
func bound(secret string) string {
	hash, ok := secretHash(secret)
	if !ok {
		return "none" // equals no hash
	}
	return hex.EncodeToString(hash[:])
}

// localPath returns path as it is, or "/" for what a browser could take for another site. It is never decoded and encoded
// again: "/%2f…" must not become "//…".
func localPath(path string) string {
	if _, err := url.ParseRequestURI(path); err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") {
		return "/"
	}
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return "/"
		}
	}
	return path
}

// sendTo redirects without telling the next page where from.
func sendTo(w http.ResponseWriter, status int, to string) {
	w.Header().Set("Location", to)
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}
