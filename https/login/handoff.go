package login

import (
	"net/http"
	"net/url"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// StartHandoff redirects a browser to the VM's plain name, to fetch a login for this name. A cookie
// binds the code that comes back to this browser: a callback link made by someone else logs no one
// in.
func (h *Handler) StartHandoff(w http.ResponseWriter, r *http.Request, rt names.Route) {
	query := url.Values{"to": {rt.Host}, "for": {browser.Bind(w, r, handoffLife)}, "path": {r.URL.RequestURI()}}
	browser.Redirect(w, http.StatusFound, names.Origin(rt.Plain, names.PortSeen(r))+handoffPath+"?"+query.Encode())
}

// continueHandoff redirects a browser with a session at the plain name back to another name of the
// VM, with a one-time code.
func (h *Handler) continueHandoff(w http.ResponseWriter, r *http.Request, rt names.Route) {
	query := r.URL.Query()
	to, ok := h.Policy.Zone.Route(query.Get("to"), gateway.Identity{}, h.Policy.VMs)
	session, loggedIn := h.Session(r, rt)
	switch {
	case !loggedIn: // before anything that depends on what exists
		if ok && to.Plain == rt.Plain && h.startEnter(w, r, rt, onURL(to.Host, browser.LocalPath(query.Get("path")))) {
			return
		}
		h.Pages.Render(w, r, h.PrivateAt(r, rt, query.Get("to"), query.Get("path")))
		return
	case !ok || to.VM.ID != rt.VM.ID || to.Host == rt.Host || rt.Host != rt.Plain || to.Service != "":
		h.Pages.Render(w, r, pages.NotFound())
		return
	case !h.Policy.MayOpen(access.Visitor{Person: session.Person}, rt.VM, to.Port):
		h.Pages.Render(w, r, h.Refused(r, rt, session.Mail, to.Host, query.Get("path")))
		return
	}
	g := session.grant(to.Host)
	g.Bound = query.Get("for")
	code, err := h.issue(r.Context(), kindHandoff, rt.VM.ID, session.Person, g, handoffLife)
	if err != nil {
		h.refuse(w, r, rt, pages.InternalError(), err)
		return
	}
	back := url.Values{"code": {code}, "path": {query.Get("path")}}
	browser.Redirect(w, http.StatusFound, names.Origin(to.Host, names.PortSeen(r))+callbackPath+"?"+back.Encode())
}

// callback exchanges the code of a handoff for a session at this name.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request, rt names.Route) {
	if !r.URL.Query().Has("code") {
		h.backWithoutLogin(w, r, rt)
		return
	}
	bound, ok := browser.Bound(r)
	if !ok {
		h.Pages.Render(w, r, pages.LoginFailed(rt))
		return
	}
	secret, g, err := h.sessions.take(r.Context(), kindHandoff, r.URL.Query().Get("code"))
	if err != nil || secret.VM != rt.VM.ID || g.Host != rt.Host || g.Bound != bound || !h.mayEnter(secret.Person, rt) {
		h.refuse(w, r, rt, pages.LoginFailed(rt), err)
		return
	}
	browser.Unbind(w)
	h.startSession(w, r, rt, g.session(secret.Person), browser.LocalPath(r.URL.Query().Get("path")))
}

// mayEnter reports whether a code may start a session here: also what was allowed when it was made
// may have changed.
func (h *Handler) mayEnter(person gateway.Principal, rt names.Route) bool {
	if rt.Service != "" {
		return h.Policy.Enters(person, rt)
	}
	_, ok := h.Policy.People.FirstPort(person, rt.VM)
	return ok
}
