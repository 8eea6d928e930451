package apex

import (
	"context"
	"net/http"
	"net/netip"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/login/browser"
)

// start starts a session of a person in a browser. A browser that has one already gets another one: what
// it held before proves nothing from then on.
func (h *Handler) start(w http.ResponseWriter, r *http.Request, person access.Person, way string) error {
	if old, ok := h.session(r); ok {
		if err := h.End(r.Context(), old.Person, old.ID); err != nil {
			return err
		}
	}
	now := h.Now().UTC()
	s, secret := login.NewApexSession(person, now)
	displaced, err := h.Sessions.AddWebSession(r.Context(), gateway.WebSession{
		ID: s.Login, Person: person.ID, Address: person.Address, Created: now, Seen: now, Until: s.Until,
		Browser: browser.Label(r.UserAgent()), From: addressOf(r), Way: way,
	})
	h.ended(displaced)
	if err != nil {
		return err
	}
	browser.SetCookie(w, sessionCookie, cookieValue(person.ID, secret), s.Until.Sub(now))
	h.Logger.Info("person logged in", "op", way, "remote", r.RemoteAddr)
	return nil
}

// session returns the session that the request carries. A failure of the store is logged, and none.
func (h *Handler) session(r *http.Request) (s gateway.WebSession, ok bool) {
	for i, cookie := range r.CookiesNamed(sessionCookie) {
		person, id, ok := readCookie(cookie.Value)
		if i > 0 || !ok { // browsers send one
			break
		}
		s, err := h.look(r.Context(), person, id)
		if err == nil {
			h.see(r.Context(), s, addressOf(r))
			return s, true
		}
		if gateway.KindOf(err) != gateway.KindNotFound && r.Context().Err() == nil {
			h.Logger.Warn("session lookup failed", "err", err)
		}
	}
	return gateway.WebSession{}, false
}

// fresh reports whether a session's person has proved a moment ago who they are.
func (h *Handler) fresh(s gateway.WebSession) bool { return h.Now().Sub(s.Created) < freshLife }

// look reads a session. The error is KindNotFound when there is none, or the person may no longer log
// in. The session has the person's present address.
func (h *Handler) look(ctx context.Context, person gateway.Principal, id login.ID) (gateway.WebSession, error) {
	s, err := h.Sessions.WebSession(ctx, person, id)
	if err != nil {
		return s, err
	}
	now, ok := h.current(ctx, access.Person{ID: s.Person})
	if !ok {
		return s, gateway.Errorf(gateway.KindNotFound, "the person may no longer log in")
	}
	s.Address = now.Address
	return s, nil
}

// see notes the use of a session, if that was not done a moment ago. A failure, as on a full disk, ends
// no session.
func (h *Handler) see(ctx context.Context, s gateway.WebSession, from string) {
	now := h.Now().UTC()
	if now.Sub(s.Seen) < seenEvery {
		return
	}
	err := h.Sessions.SeeWebSession(context.WithoutCancel(ctx), s.Person, s.ID, now, from)
	if err != nil && gateway.KindOf(err) != gateway.KindNotFound {
		h.Logger.Warn("use of a session was not noted", "err", err)
	}
}

// Visitor returns who is logged in at the domain.
func (h *Handler) Visitor(r *http.Request) (access.Person, bool) {
	s, ok := h.session(r)
	return access.Person{ID: s.Person, Address: s.Address}, ok
}

// Lasts implements login.Apex.
func (h *Handler) Lasts(ctx context.Context, person gateway.Principal, id login.ID) error {
	s, err := h.look(ctx, person, id)
	if err == nil {
		h.see(ctx, s, s.From) // the address is that of the last use at the domain
	}
	return err
}

// End implements login.Apex.
func (h *Handler) End(ctx context.Context, person gateway.Principal, id login.ID) error {
	return h.endWhere(ctx, person, func(s gateway.WebSession) bool { return s.ID == id })
}

// EndPerson ends all logins of a person, at the domain and at VMs, with what is open.
func (h *Handler) EndPerson(ctx context.Context, person gateway.Principal) error {
	if err := h.endWhere(ctx, person, func(gateway.WebSession) bool { return true }); err != nil {
		return err
	}
	if err := h.Login.EndPerson(ctx, person); err != nil {
		return err
	}
	h.EndedAll(person)
	return nil
}

func (h *Handler) endWhere(ctx context.Context, person gateway.Principal, which func(gateway.WebSession) bool) error {
	removed, err := h.Sessions.RemoveWebSessions(ctx, person, which)
	h.ended(removed)
	return err
}

// ended ends what rests on sessions that were removed, or perhaps not, after an error: those that are left
// are read again.
func (h *Handler) ended(removed []gateway.WebSession) {
	for _, s := range removed {
		h.Login.RemoveLogin(s.ID)
		h.Ended(s.ID)
	}
}

// addressOf is the IP address of r's client.
func addressOf(r *http.Request) string {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return from.Addr().Unmap().WithZone("").String()
}
