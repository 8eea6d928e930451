package passkey

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"unicode"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login/browser"
)

// maxNameBytes limits the name of a passkey.
const maxNameBytes = 64

// BeginRegistration answers a POST of {} with the options of navigator.credentials.create.
func (h *Handler) BeginRegistration(w http.ResponseWriter, r *http.Request) {
	person, err := h.visitor(w, r)
	if err != nil {
		h.fail(w, err)
		return
	}
	if !h.Fresh(r) {
		h.fail(w, errStale())
		return
	}
	keys, err := h.Store.Passkeys(r.Context(), person.ID)
	if err == nil && len(keys) >= gateway.MaxPasskeys {
		err = gateway.Errorf(gateway.KindConflict, "you have %d passkeys already", len(keys)).WithHint("Remove one that you no longer use.")
	}
	if err != nil {
		h.fail(w, err)
		return
	}
	options, err := h.beginRegistration(w, r, person, keys)
	if err != nil {
		h.fail(w, err)
		return
	}
	browser.WriteJSON(w, http.StatusOK, options.Response)
}

// beginRegistration makes options that exclude the devices which have one of the passkeys.
func (h *Handler) beginRegistration(w http.ResponseWriter, r *http.Request, person access.Person, keys []gateway.Passkey) (*protocol.CredentialCreation, error) {
	u, err := userOf(person, keys)
	if err != nil {
		return nil, err
	}
	var have []protocol.CredentialDescriptor
	for _, c := range u.credentials {
		have = append(have, c.Descriptor())
	}
	options, session, err := h.party.BeginRegistration(u, webauthn.WithExclusions(have))
	if err != nil {
		return nil, err
	}
	return options, h.begin(w, r, person, session)
}

// FinishRegistration answers a POST of {"name": …, "credential": …}, the latter the browser's
// PublicKeyCredential, with the passkey that is stored. An empty name becomes that of the browser.
func (h *Handler) FinishRegistration(w http.ResponseWriter, r *http.Request) {
	k, err := h.finishRegistration(w, r)
	if err != nil {
		h.fail(w, err)
		return
	}
	h.Logger.Info("passkey registered", "remote", r.RemoteAddr)
	browser.WriteJSON(w, http.StatusCreated, shown(k))
}

func (h *Handler) finishRegistration(w http.ResponseWriter, r *http.Request) (k gateway.Passkey, err error) {
	person, ok := h.Visitor(r)
	if !ok {
		return k, errStranger()
	}
	body, err := browser.ReadJSON(w, r)
	if err != nil {
		return k, err
	}
	var sent struct {
		Name       string          `json:"name"`
		Credential json.RawMessage `json:"credential"`
	}
	if err := json.Unmarshal(body, &sent); err != nil {
		return k, errMalformed(err)
	}
	if sent.Name == "" {
		sent.Name = browser.Label(r.UserAgent())
	}
	if sent.Name, err = cleanName(sent.Name); err != nil {
		return k, err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(sent.Credential)
	if err != nil {
		return k, errMalformed(err)
	}
	c, err := h.finish(r, parsed.Response.CollectedClientData)
	if err != nil {
		return k, err
	}
	if c.person != person { // also: what was begun is a login
		return k, gateway.Errorf(gateway.KindDenied, "another person is logged in by now").WithHint("Try again.")
	}
	credential, err := h.party.CreateCredential(user{person: person}, c.session, parsed)
	if err != nil {
		return k, errRefused(err)
	}
	k = gateway.Passkey{ID: credential.ID, Person: person.ID, Address: person.Address, Name: sent.Name, Created: h.Now().UTC()}
	if k.Record, err = encode(*credential); err != nil {
		return k, err
	}
	return k, h.Store.AddPasskey(r.Context(), k)
}

// visitor returns who is logged in, for a POST of the page's script.
func (h *Handler) visitor(w http.ResponseWriter, r *http.Request) (access.Person, error) {
	if _, err := browser.ReadJSON(w, r); err != nil {
		return access.Person{}, err
	}
	person, ok := h.Visitor(r)
	if !ok {
		return access.Person{}, errStranger()
	}
	return person, nil
}

// cleanName returns a name for a passkey without space around it.
func cleanName(name string) (string, error) {
	name = strings.TrimSpace(name)
	bad := strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) })
	if name == "" || len(name) > maxNameBytes || bad {
		return "", gateway.Invalid("a passkey needs a name of 1 to %d printable bytes", maxNameBytes)
	}
	return name, nil
}

// encode returns the record of a credential. Its attestation, which has no part in a login, is left out.
func encode(c webauthn.Credential) ([]byte, error) {
	c.Attestation = webauthn.CredentialAttestation{}
	return json.Marshal(c)
}

func decode(k gateway.Passkey) (c webauthn.Credential, err error) {
	err = json.Unmarshal(k.Record, &c)
	return c, err
}

// idText is how pages and programs write the ID of a passkey.
func idText(id []byte) string { return base64.RawURLEncoding.EncodeToString(id) }
