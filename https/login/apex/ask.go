package apex

import (
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"lodge/gateway"
	"lodge/gateway/people"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// Who may not open a page asks for it here. What they get is the same, after the same work, whether a VM
// has the name or not. Somebody without a login types an address: on a host without a login provider there
// is no other way for who is not known yet. It is kept as unproven, and an approval is for the address: the
// browser that asked gains nothing by it.

// askPage has the button that asks for access to a URL of a VM. Who may open it is led there.
func (h *Handler) askPage(w http.ResponseWriter, r *http.Request) {
	rt, to, ok := h.asksFor(r, r.URL.Query().Get("to"))
	if !ok {
		h.Pages.Render(w, r, pages.NotFound())
		return
	}
	s, loggedIn := h.session(r)
	if open, ok := h.opens(r, rt, s.Person, to); ok {
		browser.Redirect(w, http.StatusFound, open)
		return
	}
	if loggedIn {
		h.Pages.Render(w, r, pages.Ask(rt.Host, to, s.Address, ""))
		return
	}
	again := names.Origin(h.Policy.Zone.Domain, names.PortSeen(r)) + pages.AskPath + "?" + url.Values{"to": {to}}.Encode()
	h.Pages.Render(w, r, pages.Ask(rt.Host, to, "", login.ApexLoginPath+"?"+url.Values{"to": {again}}.Encode()))
}

// asksFor reads a URL of a VM, and returns it as it is shown: without what was in it beside a host name and
// a path.
func (h *Handler) asksFor(r *http.Request, wanted string) (rt names.Route, to string, ok bool) {
	rt, path, ok := h.Login.Wanted(wanted)
	ok = ok && rt.Service == "" // requests are for ports
	return rt, names.Origin(rt.Host, names.PortSeen(r)) + path, ok
}

// opens returns where the page opens, if somebody may open it.
func (h *Handler) opens(r *http.Request, rt names.Route, person gateway.Principal, to string) (string, bool) {
	switch {
	case !rt.IsVM():
		return "", false
	case h.Policy.MayOpen(access.Visitor{}, rt.VM, rt.Port): // without a login
		return to, true
	case h.Policy.MayOpen(access.Visitor{Person: person}, rt.VM, rt.Port):
		return h.wanted(r, to), true
	}
	return "", false
}

// ask records a request for access.
func (h *Handler) ask(w http.ResponseWriter, r *http.Request) {
	rt, to, ok := h.asksFor(r, r.PostForm.Get("to"))
	if !ok {
		h.fail(w, r, gateway.Invalid("the form does not name a page of a VM"))
		return
	}
	q := gateway.AccessRequest{VM: rt.VM.ID, Port: rt.Port, Host: rt.Host, From: addressOf(r)}
	s, loggedIn := h.session(r)
	if open, ok := h.opens(r, rt, s.Person, to); ok {
		browser.Redirect(w, http.StatusSeeOther, open)
		return
	}
	var err error
	if q.Person, q.Address = s.Person, s.Address; !loggedIn {
		q.Address, err = people.ParseAddress(r.PostForm.Get("address"))
	}
	added := false
	if err == nil {
		q, added, err = h.Requests.Add(r.Context(), q)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if added {
		h.asked(r, rt, q)
	}
	h.Pages.Render(w, r, pages.Asked(login.ApexLoginPath+"?"+url.Values{"to": {to}}.Encode(), q.Proven()))
}

// asked is called for each request that is on disk.
func (h *Handler) asked(r *http.Request, rt names.Route, q gateway.AccessRequest) {
	attrs := []slog.Attr{slog.String("host", q.Host), slog.String("person", q.Address), slog.String("id", q.ID), slog.String("remote", r.RemoteAddr)}
	if rt.IsVM() {
		attrs = append(attrs, gateway.LogVM(rt.VM.Identity))
	}
	gateway.Audit(r.Context(), h.Logger, gateway.EventAccessAsked, attrs...)
	if h.Asked != nil && q.VM != (gateway.ID{}) { // else nobody sees it
		h.Asked(q)
	}
}

// requestsPage shows the requests that who is logged in may answer, or one of them. It changes nothing.
func (h *Handler) requestsPage(w http.ResponseWriter, r *http.Request) {
	s, ok := h.session(r)
	if !ok {
		to := names.Origin(h.Policy.Zone.Domain, names.PortSeen(r)) + r.URL.RequestURI()
		browser.Redirect(w, http.StatusFound, login.ApexLoginPath+"?"+url.Values{"to": {to}}.Encode())
		return
	}
	all, err := h.requests(r, s.Person, r.URL.Query().Get("id"))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if access.Accepts(r, "application/json") && !access.AsksForPage(r) {
		browser.WriteJSON(w, http.StatusOK, all)
		return
	}
	h.Pages.Render(w, r, pages.Requests(all))
}

// requests are those that somebody may answer, or the one of them with an ID.
func (h *Handler) requests(r *http.Request, person gateway.Principal, id string) ([]pages.Request, error) {
	all := []pages.Request{} // an empty list is [] in JSON
	if h.Answers == nil {
		return all, nil
	}
	found, err := h.Answers.Requests(r.Context(), person)
	for _, q := range found {
		if id == "" || id == q.ID {
			all = append(all, h.shown(q))
		}
	}
	return all, err
}

func (h *Handler) shown(q gateway.AccessRequest) pages.Request {
	return pages.Request{ID: q.ID, Address: q.Address, Host: q.Host, Proven: q.Proven(), Note: "asked " + q.Asked.Format(time.DateOnly) + " from " + q.From}
}

// answer approves or denies a request.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request) {
	s, ok := h.session(r)
	if !ok {
		browser.Redirect(w, http.StatusSeeOther, login.ApexLoginPath)
		return
	}
	id := r.PostForm.Get("id")
	q, there := h.Requests.ByID(id)
	if h.Answers == nil || !there {
		h.fail(w, r, gateway.Errorf(gateway.KindNotFound, "there is no such request").WithHint("It was answered, or has expired."))
		return
	}
	page, err := pages.Denied(), error(nil)
	switch r.PostForm.Get("do") {
	case "approve":
		rt, ok := h.Policy.Zone.Route(q.Host, gateway.Identity{}, h.Policy.VMs)
		if !ok || rt.VM.ID != q.VM || rt.Port != q.Port {
			err = gateway.Errorf(gateway.KindConflict, "%s leads to another page now", q.Host).WithHint("Deny the request.")
			break
		}
		page, err = pages.Approved(h.shown(q), rt.VM.Name), h.Answers.Approve(r.Context(), s.Person, id)
	case "deny":
		err = h.Answers.Deny(r.Context(), s.Person, id)
	default:
		err = gateway.Invalid("the form asks for nothing that there is")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.Pages.Render(w, r, page)
}
