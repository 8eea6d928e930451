package apex

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// againQuery, in the query of the login, asks for a fresh session.
const againQuery = "again"

// loginPage has the ways in. A browser that is logged in, as freshly as it must be, goes on to what it wants
// to open.
func (h *Handler) loginPage(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if token := query.Get("token"); token != "" {
		h.linkPage(w, r, token)
		return
	}
	if s, ok := h.session(r); ok && (h.fresh(s) || !query.Has(againQuery)) {
		browser.Redirect(w, http.StatusFound, h.wanted(r, query.Get("to")))
		return
	}
	to := query.Get("to")
	if h.wanted(r, to) == AccountPath {
		to = ""
	}
	h.Pages.Render(w, r, pages.Ways(h.providers.Names(), to))
}

// linkPage shows a login link, and whether it has a use. It changes nothing.
func (h *Handler) linkPage(w http.ResponseWriter, r *http.Request, token string) {
	switch err := h.Login.ApexLinkWorks(r.Context(), token); {
	case err == nil:
		h.Pages.Render(w, r, pages.ApexLink(token))
	case gateway.KindOf(err) == gateway.KindNotFound:
		h.Pages.Render(w, r, h.Login.RefuseSecret(r, pages.ApexLinkUsed()))
	default:
		h.fail(w, r, err)
	}
}

// wanted is where a browser goes after a login: to a URL of a VM, to a page of the domain itself that
// people are sent to, or to the account.
func (h *Handler) wanted(r *http.Request, to string) string {
	if enter, ok := h.Login.EnterURL(to, names.PortSeen(r)); ok {
		return enter
	}
	origin := names.Origin(h.Policy.Zone.Domain, names.PortSeen(r))
	if path, ok := strings.CutPrefix(to, origin); ok && len(path) <= maxPathBytes && path == browser.LocalPath(path) {
		if page, _, _ := strings.Cut(path, "?"); page == pages.AskPath || page == pages.AnswerPath {
			return path
		}
	}
	return AccountPath
}

// maxPathBytes limits a path of the domain's own after a login. That of a request has a URL in it.
const maxPathBytes = 8 << 10

// useLink turns a link's token into a session. Only the form's POST does that: programs that fetch links
// before a person does would use up the token with a GET.
func (h *Handler) useLink(w http.ResponseWriter, r *http.Request) {
	id, err := h.Login.UseApexLink(r.Context(), r.PostForm.Get("token"))
	var person access.Person
	if err == nil {
		var ok bool
		if person, ok = h.current(r.Context(), access.Person{ID: id}); !ok {
			err = gateway.Errorf(gateway.KindNotFound, "the person may no longer log in")
		}
	}
	if gateway.KindOf(err) == gateway.KindNotFound && err != nil {
		h.Pages.Render(w, r, h.Login.RefuseSecret(r, pages.ApexLinkUsed()))
		return
	}
	if err == nil {
		err = h.start(w, r, person, "link")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	browser.Redirect(w, http.StatusSeeOther, AccountPath)
}

// beginProvider leads a browser to a provider, by a page: browsers apply form-action to the redirects
// of a form too, and the policy of pages allows no other site.
func (h *Handler) beginProvider(w http.ResponseWriter, r *http.Request, name string) {
	_, again := h.session(r)
	at, err := h.providers.Begin(w, r, name, r.PostForm.Get("to"), again)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.Pages.Render(w, r, pages.Continue(name, at))
}

// finishProvider takes a browser back from a provider.
func (h *Handler) finishProvider(w http.ResponseWriter, r *http.Request, name string) {
	address, to, err := h.providers.Finish(r, name)
	if gateway.KindOf(err) == gateway.KindDenied { // a state or a code that is none
		h.Pages.Render(w, r, h.Login.RefuseSecret(r, h.failed(err)))
		return
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	person, err := h.proven(r.Context(), address)
	if _, _, ofVM := h.asksFor(r, to); ofVM && gateway.KindOf(err) == gateway.KindDenied {
		page := pages.Failed(http.StatusForbidden, err, login.ApexLoginPath)
		page.Buttons = []pages.Link{{Text: "Ask for access", URL: pages.AskPath + "?" + url.Values{"to": {to}}.Encode()}}
		h.Pages.Render(w, r, page)
		return
	}
	if err == nil {
		err = h.start(w, r, person, name)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	browser.Redirect(w, http.StatusSeeOther, h.wanted(r, to))
}

// handOver sends a browser that comes from a VM's name back with a code for a session there, or without one
// if it is not logged in here.
func (h *Handler) handOver(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	port := names.PortSeen(r)
	path := browser.LocalPath(query.Get("path"))
	rt, found := h.Policy.Zone.Route(query.Get("to"), gateway.Identity{}, h.Policy.VMs)
	s, ok := h.session(r)
	switch {
	case !ok && found && rt.VMName != "" && !rt.Guests: // whether a VM has the name or not
		browser.Redirect(w, http.StatusFound, login.BackURL(rt, path, port))
		return
	case !ok:
		browser.Redirect(w, http.StatusFound, login.ApexLoginPath)
		return
	}
	if !found || !rt.IsVM() || rt.Guests || !h.Policy.Enters(s.Person, rt) {
		ask := pages.AskPath + "?" + url.Values{"to": {login.WantedAt(query.Get("to"), path, port)}}.Encode()
		if rt.Service != "" {
			ask = "" // requests are for ports
		}
		h.Pages.Render(w, r, pages.Refused(s.Address, ask))
		return
	}
	session := login.Session{Person: s.Person, Mail: s.Address, Login: s.ID, Apex: true, Until: s.Until}
	if len(query.Get("for")) != hex.EncodedLen(sha256.Size) {
		h.fail(w, r, gateway.Invalid("the request is not one that a page of a VM has begun"))
		return
	}
	back, err := h.Login.HandOver(r.Context(), session, rt, query.Get("for"), path, port)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	browser.Redirect(w, http.StatusFound, back)
}
