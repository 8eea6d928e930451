package login

import (
	"context"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/https/login/browser"
	"lodge/https/names"
	"lodge/https/pages"
)

// logout ends the login of the request's session: that of this browser, at all names of the VM or,
// if it is one at the domain itself, everywhere, with what is open. Only a POST by the VM's own
// pages does that. At a bucket's name, where pages of a website may send it, it ends the session
// there alone.
func (h *Handler) logout(w http.ResponseWriter, r *http.Request, rt names.Route) {
	if h.Policy.CrossSite(r, rt) {
		h.Pages.Render(w, r, pages.CrossSite(rt))
		return
	}
	if s, ok := h.Session(r, rt); ok {
		end := h.end
		if rt.Bucket != "" {
			end = h.endSession
		}
		if err := end(r.Context(), rt.VM.ID, s); err != nil {
			h.refuse(w, r, rt, pages.InternalError(), err)
			return
		}
		h.audit(r, rt, gateway.EventLogout, s.Person)
	}
	browser.SetCookie(w, sessionCookie, "", 0)
	h.Pages.Render(w, r, pages.LoggedOut(rt))
}

// end ends the login of a session. One that has ended by now is no error.
func (h *Handler) end(ctx context.Context, vm gateway.ID, s Session) error {
	var err error
	if s.Apex {
		err = h.Apex.End(ctx, s.Person, s.Login)
	} else {
		_, err = h.Store.ChangeSecret(ctx, gateway.SecretKey{Kind: kindLogin, Hash: s.Login}, time.Now(), nil)
	}
	if err != nil && gateway.KindOf(err) != gateway.KindNotFound { // another logout was first
		return err
	}
	h.ended(vm, s.Login)
	return nil
}

// endSession ends a session, and not the login that it belongs to. One that has ended by now is no
// error.
func (h *Handler) endSession(ctx context.Context, vm gateway.ID, s Session) error {
	_, err := h.Store.ChangeSecret(ctx, gateway.SecretKey{Kind: kindSession, Hash: s.ID}, time.Now(), nil)
	if err != nil && gateway.KindOf(err) != gateway.KindNotFound {
		return err
	}
	h.ended(vm, s.ID)
	return nil
}
