package passkey

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login/browser"
)

// BeginLogin answers a POST of {} with the options of navigator.credentials.get. They name no passkey:
// the device offers those that it has.
func (h *Handler) BeginLogin(w http.ResponseWriter, r *http.Request) {
	_, err := browser.ReadJSON(w, r)
	if err != nil {
		h.fail(w, err)
		return
	}
	options, session, err := h.party.BeginDiscoverableLogin()
	if err == nil {
		err = h.begin(w, r, access.Person{}, session)
	}
	if err != nil {
		h.fail(w, err)
		return
	}
	browser.WriteJSON(w, http.StatusOK, options.Response)
}

// FinishLogin answers a POST of the browser's PublicKeyCredential: it logs the person in.
func (h *Handler) FinishLogin(w http.ResponseWriter, r *http.Request) {
	person, err := h.finishLogin(w, r)
	if err == nil {
		err = h.Login(w, r, person)
	}
	if err != nil {
		h.fail(w, err)
		return
	}
	browser.WriteJSON(w, http.StatusOK, struct {
		Person string `json:"person"`
	}{person.Address})
}

func (h *Handler) finishLogin(w http.ResponseWriter, r *http.Request) (access.Person, error) {
	body, err := browser.ReadJSON(w, r)
	if err != nil {
		return access.Person{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(body)
	if err != nil {
		return access.Person{}, errMalformed(err)
	}
	c, err := h.finish(r, parsed.Response.CollectedClientData)
	if err != nil {
		return access.Person{}, err
	}
	if c.person.Known() {
		return access.Person{}, errRefused(errors.New("the challenge is of a registration"))
	}
	u, err := h.owner(r.Context(), parsed)
	if err != nil {
		return access.Person{}, err
	}
	_, _, err = h.party.ValidatePasskeyLogin(func([]byte, []byte) (webauthn.User, error) { return u, nil }, c.session, parsed)
	if err != nil {
		return access.Person{}, errRefused(err)
	}
	return u.person, h.use(r, u.person, parsed)
}

// owner returns the person whose handle and passkey a device has sent, both of which it has to prove
// yet.
func (h *Handler) owner(ctx context.Context, parsed *protocol.ParsedCredentialAssertionData) (user, error) {
	handle := parsed.Response.UserHandle
	if len(handle) != 8 {
		return user{}, errUnknown()
	}
	id := gateway.Principal(binary.BigEndian.Uint64(handle))
	keys, err := h.Store.Passkeys(ctx, id)
	if err != nil {
		return user{}, err
	}
	for _, k := range keys {
		if string(k.ID) != string(parsed.RawID) {
			continue
		}
		person, ok := h.Current(ctx, access.Person{ID: id, Address: k.Address})
		if !ok || person.ID != id {
			return user{}, gateway.Errorf(gateway.KindDenied, "the person of this passkey may no longer log in")
		}
		return userOf(person, []gateway.Passkey{k})
	}
	return user{}, errUnknown()
}

// use stores the counter of a passkey that has logged person in. A counter that has not grown since
// the last login is that of a copy, or the last one was (WebAuthn §6.1.1): the login is refused. It is
// compared in the store's change, as two logins may run at once. Passkeys that are meant to be copied
// to all devices of a person always have 0.
func (h *Handler) use(r *http.Request, person access.Person, parsed *protocol.ParsedCredentialAssertionData) error {
	err := h.Store.ChangePasskey(r.Context(), person.ID, parsed.RawID, func(k *gateway.Passkey) error {
		c, err := decode(*k)
		if err != nil {
			return err
		}
		c.Authenticator.CloneWarning = false
		data := parsed.Response.AuthenticatorData
		if c.Authenticator.UpdateCounter(data.Counter); c.Authenticator.CloneWarning {
			return errCloned()
		}
		c.Flags = c.Flags.Update(data.Flags)
		k.Used = h.Now().UTC()
		k.Record, err = encode(c)
		return err
	})
	if errors.Is(err, errCopy) {
		h.Logger.Warn("passkey refused: its counter did not grow, so there may be a copy of it", "remote", r.RemoteAddr)
	}
	return err
}
