package apex

import (
	"encoding/hex"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// Shown is a session as its person sees it.
type Shown struct {
	ID      string    `json:"id"`
	Browser string    `json:"browser"`
	From    string    `json:"from"`
	Way     string    `json:"way"`
	Created time.Time `json:"created"`
	Seen    time.Time `json:"seen"`
	This    bool      `json:"this,omitzero"` // the session of the request
}

// List returns a person's sessions, the last used first.
func (h *Handler) list(r *http.Request, this gateway.WebSession) ([]Shown, error) {
	sessions, err := h.Sessions.WebSessions(r.Context(), this.Person)
	all := make([]Shown, 0, len(sessions))
	for _, s := range sessions {
		all = append(all, Shown{hex.EncodeToString(s.ID[:]), s.Browser, s.From, s.Way, s.Created, s.Seen, s.ID == this.ID})
	}
	return all, err
}

func (h *Handler) listSessions(w http.ResponseWriter, r *http.Request) {
	this, ok := h.session(r)
	if !ok {
		browser.WriteError(w, gateway.Errorf(gateway.KindDenied, "you are not logged in"))
		return
	}
	all, err := h.list(r, this)
	if err != nil {
		browser.WriteError(w, err)
		return
	}
	browser.WriteJSON(w, http.StatusOK, all)
}

// accountPage shows the passkeys and the sessions of who is logged in.
func (h *Handler) accountPage(w http.ResponseWriter, r *http.Request) {
	this, ok := h.session(r)
	if !ok {
		browser.Redirect(w, http.StatusFound, login.ApexLoginPath)
		return
	}
	person := access.Person{ID: this.Person, Address: this.Address}
	keys, err := h.passkeys.List(r.Context(), person)
	sessions, err2 := h.list(r, this)
	if err == nil {
		err = err2
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	account := pages.Account{Address: this.Address, Stale: !h.fresh(this), Pages: h.pagesOf(r, this.Person)}
	if account.Requests, err = h.requests(r, this.Person, ""); err != nil {
		h.fail(w, r, err)
		return
	}
	for _, k := range keys {
		account.Passkeys = append(account.Passkeys, pages.Item{ID: k.ID, Name: k.Name, Note: "made " + day(k.Created) + ", last used " + day(k.Used)})
	}
	for _, s := range sessions {
		note := "by " + s.Way + " since " + day(s.Created) + ", last used " + day(s.Seen) + " from " + s.From
		account.Sessions = append(account.Sessions, pages.Item{ID: s.ID, Name: s.Browser, Note: note, This: s.This})
	}
	h.Pages.Render(w, r, pages.AccountOf(account))
}

// maxPages limits the list of pages.
const maxPages = 200

// pagesOf lists the VMs of which somebody may open a page, with the first of those.
func (h *Handler) pagesOf(r *http.Request, person gateway.Principal) (rows []pages.Row) {
	for _, m := range h.VMs() {
		port, ok := h.Policy.People.FirstPort(person, m)
		if !ok || m.Desired == gateway.Removed || len(rows) >= maxPages {
			continue
		}
		host := h.Policy.Zone.Host(m.Name, port)
		row := pages.Row{Title: host, URL: names.Origin(host, names.PortSeen(r))}
		if m.Desired == gateway.Stopped {
			row.Note = "stopped"
		}
		rows = append(rows, row)
	}
	return rows
}

func day(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.DateOnly)
}

// change does what a form of the account page asks for.
func (h *Handler) change(w http.ResponseWriter, r *http.Request) {
	this, ok := h.session(r)
	if !ok {
		browser.Redirect(w, http.StatusSeeOther, login.ApexLoginPath)
		return
	}
	person := access.Person{ID: this.Person, Address: this.Address}
	id, next := r.PostForm.Get("id"), AccountPath
	var err error
	switch r.PostForm.Get("do") {
	case "rename-passkey":
		err = h.passkeys.Rename(r.Context(), person, id, r.PostForm.Get("name"))
	case "remove-passkey":
		err = h.passkeys.Remove(r.Context(), person, id)
	case "end-session":
		err = h.endWhere(r.Context(), this.Person, func(s gateway.WebSession) bool { return hex.EncodeToString(s.ID[:]) == id })
	case "log-in-again": // which can add a passkey then
		browser.Redirect(w, http.StatusSeeOther, login.ApexLoginPath+"?"+againQuery)
		return
	case "log-out":
		err, next = h.End(r.Context(), this.Person, this.ID), login.ApexLoginPath
	case "log-out-everywhere":
		err, next = h.EndPerson(r.Context(), this.Person), login.ApexLoginPath
	default:
		err = gateway.Invalid("the form asks for nothing that there is")
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if next == login.ApexLoginPath {
		browser.SetCookie(w, sessionCookie, "", 0)
	}
	h.Logger.Info("account changed", "op", r.PostForm.Get("do"), "remote", r.RemoteAddr)
	browser.Redirect(w, http.StatusSeeOther, next)
}
