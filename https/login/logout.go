package login

import (
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// logout ends the login of the request's session: that of this browser, at all names of the VM, with
// what is open. Only a POST by the VM's own pages does that.
func (h *Handler) logout(w http.ResponseWriter, r *http.Request, rt names.Route) {
	if h.Policy.CrossSite(r, rt) {
		h.Pages.Render(w, r, pages.CrossSite(rt))
		return
	}
	if s, ok := h.Session(r, rt); ok {
		_, err := h.Store.ChangeSecret(r.Context(), gateway.SecretKey{Kind: kindLogin, Hash: s.Login}, time.Now(), nil)
		if err != nil && gateway.KindOf(err) != gateway.KindNotFound { // another logout was first
			h.refuse(w, r, rt, pages.InternalError(), err)
			return
		}
		h.sessions.remove(func(k known) bool { return k.Login == s.Login })
		h.joins.removeLogin(s.Login)
		h.Ended(rt.VM.ID, s.Login)
		h.audit(r, rt, gateway.EventLogout, s.Person)
	}
	browser.SetCookie(w, sessionCookie, "", 0)
	h.Pages.Render(w, r, pages.LoggedOut(rt))
}
