// Package passkey registers passkeys (WebAuthn credentials) of persons and logs persons in by them.
//
// A page's script asks for a challenge, passes it to the browser, and sends the answer of the person's
// device back. A challenge is bound to the browser by a cookie, works once, and lasts five minutes. A
// passkey is discoverable, so that no address has to be typed, and the device verifies its user. The
// relying party is the host's domain. A page of a VM, which is below that, can have the browser sign
// for it, so the origin is compared byte by byte.
//
// The package stores no secret: of a passkey it has the public key. It never decides who a person is:
// Config has the functions that return who is logged in and whether a person still exists, and that
// start the session.
package passkey

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login/browser"
)

// Store keeps the passkeys of persons, by the persons' IDs. What it has changed is synced to disk. Its
// errors are those of gateway/store.
type Store interface {
	Passkeys(ctx context.Context, person gateway.Principal) ([]gateway.Passkey, error)
	AddPasskey(ctx context.Context, k gateway.Passkey) error
	ChangePasskey(ctx context.Context, person gateway.Principal, id []byte, change func(*gateway.Passkey) error) error
	RemovePasskey(ctx context.Context, person gateway.Principal, id []byte) error
}

// Config is what a Handler needs. All fields but Now are required.
type Config struct {
	Domain string // the relying party: passkeys work at this name
	Origin string // of the pages that may use them, as browsers write it: https://<domain>, with a port unless it is 443
	Store  Store
	// Visitor returns who is logged in.
	Visitor func(*http.Request) (access.Person, bool)
	// Fresh reports whether who is logged in has proved that a moment ago. Who finds an open browser then adds
	// no passkey of their own, unless a provider lets its own open session in without a question.
	Fresh func(*http.Request) bool
	// Current returns a person as of now, from ID and address of the time of the registration. It is false
	// for one who may no longer log in.
	Current func(context.Context, access.Person) (access.Person, bool)
	// Login logs a person in: it starts a session and sets its cookie.
	Login  func(http.ResponseWriter, *http.Request, access.Person) error
	Logger *slog.Logger
	Now    func() time.Time // of challenges; nil means time.Now
}

// challengeLife is how long a person may take to answer the device's question.
const challengeLife = 5 * time.Minute

// Handler registers passkeys and logs in by them. It is safe for concurrent use; make one with New.
type Handler struct {
	Config
	party   *webauthn.WebAuthn
	pending *browser.Pending[ceremony]
}

// ceremony is a registration or a login that a browser has begun.
type ceremony struct {
	bound   string        // see browser.Bind
	person  access.Person // who registers a passkey; the zero Person for a login
	session webauthn.SessionData
}

// New returns a Handler. It fails for a domain that cannot be a relying party.
func New(cfg Config) (*Handler, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	limit := webauthn.TimeoutConfig{Timeout: challengeLife, TimeoutUVD: challengeLife} // a hint for the browser
	party, err := webauthn.New(&webauthn.Config{
		RPID: cfg.Domain, RPDisplayName: "Lodge", RPOrigins: []string{cfg.Origin},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, RequireResidentKey: protocol.ResidentKeyRequired(),
			UserVerification: protocol.VerificationRequired,
		},
		Timeouts: webauthn.TimeoutsConfig{Login: limit, Registration: limit},
	})
	if err != nil {
		return nil, fmt.Errorf("passkeys of %s: %w", cfg.Domain, err)
	}
	return &Handler{Config: cfg, party: party, pending: browser.NewPending[ceremony](challengeLife, cfg.Now)}, nil
}

// begin notes a ceremony under its challenge.
func (h *Handler) begin(w http.ResponseWriter, r *http.Request, person access.Person, s *webauthn.SessionData) error {
	c := ceremony{bound: browser.Bind(w, r, challengeLife), person: person, session: *s}
	return h.pending.Add(s.Challenge, browser.Peer(r), c)
}

// finish returns the ceremony whose challenge a device has signed. From then on the challenge is used,
// whatever comes of it.
func (h *Handler) finish(r *http.Request, client protocol.CollectedClientData) (ceremony, error) {
	c, ok := h.pending.Take(client.Challenge)
	bound, has := browser.Bound(r)
	switch {
	case !ok || !has || c.bound != bound:
		return ceremony{}, gateway.Errorf(gateway.KindDenied, "this browser did not begin this, took more than five minutes, or keeps no cookies").
			WithHint("Try again.")
	case client.Origin != h.Origin || client.CrossOrigin:
		return ceremony{}, gateway.Errorf(gateway.KindDenied, "the passkey was used for another page").WithHint("Open %s and try again.", h.Origin)
	}
	return c, nil
}

// user is a person as package webauthn sees one.
type user struct {
	person      access.Person
	credentials []webauthn.Credential
}

// WebAuthnID is the user handle. It is public to the device alone, and no two persons have one.
func (u user) WebAuthnID() []byte { return binary.BigEndian.AppendUint64(nil, uint64(u.person.ID)) }

func (u user) WebAuthnName() string                       { return u.person.Address }
func (u user) WebAuthnDisplayName() string                { return u.person.Address }
func (u user) WebAuthnCredentials() []webauthn.Credential { return u.credentials }

// userOf returns the person with the passkeys as they are stored.
func userOf(person access.Person, keys []gateway.Passkey) (u user, err error) {
	u.person = person
	for _, k := range keys {
		c, err := decode(k)
		if err != nil {
			return user{}, err
		}
		u.credentials = append(u.credentials, c)
	}
	return u, nil
}
