package passkey

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login/browser"
)

// Shown is a passkey as its person sees it.
type Shown struct {
	ID      string    `json:"id"` // base64url
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	Used    time.Time `json:"used,omitzero"` // the last login
}

func shown(k gateway.Passkey) Shown {
	return Shown{ID: idText(k.ID), Name: k.Name, Created: k.Created, Used: k.Used}
}

// List returns a person's passkeys, the oldest first.
func (h *Handler) List(ctx context.Context, person access.Person) ([]Shown, error) {
	keys, err := h.Store.Passkeys(ctx, person.ID)
	all := make([]Shown, 0, len(keys))
	for _, k := range keys {
		all = append(all, shown(k))
	}
	return all, err
}

// ServeList answers a GET with the passkeys of who is logged in.
func (h *Handler) ServeList(w http.ResponseWriter, r *http.Request) {
	person, ok := h.Visitor(r)
	if !ok {
		h.fail(w, errStranger())
		return
	}
	all, err := h.List(r.Context(), person)
	if err != nil {
		h.fail(w, err)
		return
	}
	browser.WriteJSON(w, http.StatusOK, all)
}

// Rename gives a passkey of a person another name.
func (h *Handler) Rename(ctx context.Context, person access.Person, id, name string) error {
	name, err := cleanName(name)
	if err != nil {
		return err
	}
	return h.Store.ChangePasskey(ctx, person.ID, rawID(id), func(k *gateway.Passkey) error { k.Name = name; return nil })
}

// Remove removes a passkey of a person. Sessions that it has begun last.
func (h *Handler) Remove(ctx context.Context, person access.Person, id string) error {
	return h.Store.RemovePasskey(ctx, person.ID, rawID(id))
}

// rawID reads what idText has written; of anything else it makes the ID of no passkey.
func rawID(text string) []byte {
	id, _ := base64.RawURLEncoding.Strict().DecodeString(text) // none: not found
	return id
}
