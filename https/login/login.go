// Package login logs people in to VMs' pages: one-time links, sessions, and the handoff of a login
// from a VM's plain name to its other names. It also knows the passes that open a port without a login:
// links for browsers, tokens for scripts.
//
// A link leads to a page with a button, whose POST starts a session at the VM's plain name. Each
// host name has a session of its own, in a cookie that browsers keep for that name alone. A browser
// that opens another name of the VM is sent to the plain name (StartHandoff), which sends it back
// with a code for a session there. A page load does the same for all names that its scripts may use
// (StartNames). All sessions belong to one login, and end with it.
//
// The package never stores a secret (only its SHA-256), never logs one, and never redirects to
// another VM or site.
package login

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// Paths of the gateway on every VM's names. They never reach the VM.
const (
	Prefix     = "/.lodge/"
	namesPath  = Prefix + "names"  // ?path=: a page that logs in at the VM's other names, then opens path
	joinPath   = Prefix + "join"   // on such a name: an image that logs in there
	loginPath  = Prefix + "login"  // ?token=: a page with a button, which logs in
	logoutPath = Prefix + "logout" // a page with a button, which logs out
	linkPath   = Prefix + "link"   // ?secret=: a page with a button, which opens the port of a link in this browser
	// on the plain name: ?to=&for=&path=: sends a logged-in browser on to another name of the VM
	handoffPath  = Prefix + "handoff"
	callbackPath = Prefix + "callback" // on that other name: ?code=&path=: logs in there, without a code opens path
	enterPath    = Prefix + "enter"    // ?path=: fetches a login from the domain itself, then opens path
	onPath       = Prefix + "on"       // ?at=&path=: opens path at another name of the VM
)

// maxFormBytes limits each form.
const maxFormBytes = 4 << 10

// Config is what a Handler needs. All fields are required.
type Config struct {
	Policy access.Policy
	Store  Store
	Pages  *pages.Renderer
	Logger *slog.Logger
	// Listening returns the ports of a VM that listen, of also and those where web servers mostly do.
	Listening func(ctx context.Context, vm gateway.VM, also []uint16) []uint16
	// Many reports whether strangers may come from an address that the owner comes from, as from that
	// of a proxy or a tunnel.
	Many func(netip.Addr) bool
	// Ended is called when a secret has ended: a login at a VM, a session, a link, a token and what rests on them.
	Ended func(vm gateway.ID, id ID)
	Apex  Apex
}

// Apex has the logins at the domain itself.
type Apex interface {
	// Lasts returns KindNotFound when a login has ended.
	Lasts(ctx context.Context, person gateway.Principal, id ID) error
	// End ends a login at the domain and at all VMs, with what is open.
	End(ctx context.Context, person gateway.Principal, id ID) error
}

// Handler logs people in. It is safe for concurrent use.
type Handler struct {
	Config
	sessions *sessions
	seen     *seen
	joins    *joins
	wrong    wrong
}

// New returns a Handler.
func New(cfg Config) *Handler {
	return &Handler{Config: cfg, sessions: newSessions(cfg), seen: newSeen(), joins: newJoins()}
}

// Link makes a link that logs person in to the VM's plain name, once, within 15 minutes. The error
// is KindDenied for a person who may not open it.
func (h *Handler) Link(ctx context.Context, vm gateway.VM, person gateway.Principal) (string, error) {
	if _, ok := h.Policy.People.FirstPort(person, vm); !ok {
		name := h.Policy.People.Name(person)
		return "", gateway.Errorf(gateway.KindDenied, "%s may not open %s", name, vm.Name).
			WithHint("Let them in first: lodge grant %s %s view, or lodge share %s people %s", vm.Name, name, vm.Name, name)
	}
	token, err := h.issue(ctx, kindLink, vm.ID, person, grant{}, linkLife)
	if err != nil {
		return "", err
	}
	return h.Policy.Zone.URL(vm.Name, gateway.DefaultPort) + loginPath + "?token=" + token, nil
}

// Remove deletes the sessions, links and codes of a VM.
func (h *Handler) Remove(ctx context.Context, id gateway.ID) error {
	err := h.Store.RemoveSecrets(ctx, gateway.SecretsOf{VM: id})
	h.sessions.remove(func(k known) bool { return k.VM == id })
	h.seen.remove(id)
	h.joins.removeVM(id)
	return err
}

// Serve answers the paths below Prefix. People log in there; VMs cannot.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request, rt names.Route) {
	isGet := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch path := r.URL.Path; {
	case gateway.VMFrom(r.Context()).Known():
		h.Pages.Render(w, r, pages.DeniedToVM(rt))
	case rt.Service != "" && !slices.Contains([]string{linkPath, logoutPath, enterPath, callbackPath}, path): // others lead to ports
		h.Pages.Render(w, r, pages.NotFound())
	case path == loginPath && isGet:
		h.loginLinkPage(w, r, rt, r.URL.Query().Get("token"))
	case path == loginPath && r.Method == http.MethodPost:
		h.useLoginLink(w, r, rt)
	case path == linkPath && isGet:
		h.linkPage(w, r, rt, r.URL.Query().Get("secret"))
	case path == linkPath && r.Method == http.MethodPost:
		h.useLink(w, r, rt)
	case path == logoutPath && isGet:
		h.Pages.Render(w, r, pages.LogoutButton(rt))
	case path == logoutPath && r.Method == http.MethodPost:
		h.logout(w, r, rt)
	case path == namesPath && isGet:
		h.names(w, r, rt)
	case path == enterPath && isGet:
		h.enter(w, r, rt)
	case path == onPath && isGet:
		h.goOn(w, r, rt)
	case path == joinPath && isGet:
		h.join(w, r, rt)
	case path == handoffPath && isGet:
		h.continueHandoff(w, r, rt)
	case path == callbackPath && isGet:
		h.callback(w, r, rt)
	default:
		h.Pages.Render(w, r, pages.NotFound())
	}
}

// loginLinkPage shows a login link, and whether it has a use. It changes nothing.
func (h *Handler) loginLinkPage(w http.ResponseWriter, r *http.Request, rt names.Route, token string) {
	link, err := h.sessions.peek(r.Context(), kindLink, token)
	if err != nil || link.VM != rt.VM.ID {
		h.refuse(w, r, rt, pages.LinkUsed(rt), err)
		return
	}
	h.Pages.Render(w, r, pages.LoginButton(rt, token))
}

// useLoginLink turns a login link's token into a session. Only the form's POST does that: programs that fetch
// links before a person does (mail filters, chat previews) would use up the token with a GET.
func (h *Handler) useLoginLink(w http.ResponseWriter, r *http.Request, rt names.Route) {
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if h.Policy.CrossSite(r, rt) {
		h.Pages.Render(w, r, pages.CrossSite(rt))
		return
	}
	link, _, err := h.sessions.take(r.Context(), kindLink, r.PostFormValue("token"))
	port, ok := h.Policy.People.FirstPort(link.Person, rt.VM) // also what was allowed may have changed
	if err != nil || link.VM != rt.VM.ID || !ok {
		h.refuse(w, r, rt, pages.LinkUsed(rt), err)
		return
	}
	if old, ok := h.Session(r, rt); ok { // also at the VM's other names: one browser is one person
		if err := h.end(r.Context(), rt.VM.ID, old); err != nil {
			h.refuse(w, r, rt, pages.InternalError(), err)
			return
		}
	}
	s := Session{Person: link.Person, Until: time.Now().Add(loginLife)}
	secret, err := h.issue(r.Context(), kindLogin, rt.VM.ID, link.Person, grant{}, loginLife)
	if err != nil {
		h.refuse(w, r, rt, pages.InternalError(), err)
		return
	}
	s.Login, _ = browser.Hash(secret) // issue made it
	start := "/"
	if port != gateway.DefaultPort { // its name fetches the login from here
		start = names.Origin(strconv.Itoa(int(port))+"-"+rt.Plain, names.PortSeen(r)) + "/"
	}
	h.startSession(w, r, rt, s, start)
}

// refuse renders p for a wrong secret, or InternalError when err is a failure of the host.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, rt names.Route, p pages.Page, err error) {
	if err != nil && gateway.KindOf(err) != gateway.KindNotFound {
		h.Logger.With(gateway.LogVM(rt.VM.Identity)).Error("login failed", "err", err)
		p = pages.InternalError()
	} else {
		p = h.RefuseSecret(r, p)
	}
	h.Pages.Render(w, r, p)
}

// audit records a login or a logout.
func (h *Handler) audit(r *http.Request, rt names.Route, event gateway.AuditEvent, person gateway.Principal) {
	gateway.Audit(r.Context(), h.Logger, event, gateway.LogVM(rt.VM.Identity), slog.String("person", h.Policy.People.Name(person)),
		slog.String("host", rt.Host), slog.String("remote", r.RemoteAddr))
}

// clearStorage removes from a browser what pages at a bucket's name have stored there, with their
// workers, before a session begins: scripts of a website that is gone must not act with it.
func clearStorage(w http.ResponseWriter, rt names.Route) {
	if rt.Bucket != "" {
		w.Header().Set("Clear-Site-Data", `"cache", "storage"`)
	}
}

// startSession starts a session of a login at the route's name and redirects to path, which may be on
// another name of the VM.
func (h *Handler) startSession(w http.ResponseWriter, r *http.Request, rt names.Route, s Session, path string) {
	life := time.Until(s.Until).Round(time.Second)
	secret, err := h.issue(r.Context(), kindSession, rt.VM.ID, s.Person, s.grant(rt.Host), life)
	if err != nil {
		h.refuse(w, r, rt, pages.InternalError(), err)
		return
	}
	clearStorage(w, rt)
	browser.SetCookie(w, sessionCookie, secret, life)
	h.note(r, rt, s.Person)
	h.audit(r, rt, gateway.EventLogin, s.Person)
	browser.Redirect(w, http.StatusSeeOther, path)
}
