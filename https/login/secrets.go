package login

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"lodge/gateway"
	"lodge/https/login/browser"
)

// Store keeps the secrets that people hold: one-time links, codes and sessions. A secret that is missing,
// used or expired at now is a KindNotFound error.
type Store interface {
	// PutSecret returns the secret that made room for this one, if any.
	PutSecret(ctx context.Context, key gateway.SecretKey, secret gateway.Secret) (gateway.Displaced, error)
	LookSecret(ctx context.Context, key gateway.SecretKey, now time.Time) (gateway.Secret, error)
	// ChangeSecret changes a secret, or removes it if keep is false or change is nil, in one step: of any
	// number of callers that remove it, exactly one gets it.
	ChangeSecret(ctx context.Context, key gateway.SecretKey, now time.Time, change func(*gateway.Secret) (keep bool, err error)) (gateway.Secret, error)
	ListSecrets(ctx context.Context, of gateway.SecretsOf, now time.Time) (map[gateway.SecretKey]gateway.Secret, error)
	RemoveSecrets(ctx context.Context, of gateway.SecretsOf) error
}

// The kinds of secrets, and how long they live.
const (
	kindLink    = "link"
	kindApex    = "apex-link" // a link to the domain itself; it has no VM
	kindLogin   = "login"     // its hash is the login's ID; the secret is not kept
	kindHandoff = "handoff"
	kindSeen    = "seen" // no secret, but a hash too: see seen
	kindSession = "session"
	kindVisit   = "visit" // of a browser that was let in by a link to a port

	linkLife    = 15 * time.Minute
	handoffLife = time.Minute
	loginLife   = 30 * 24 * time.Hour
	triedLife   = 30 * time.Second
)

// grant is what a secret allows beside its VM and its person. It is stored as JSON.
type grant struct {
	Host  string `json:"host,omitempty"`  // the one host name at which it is valid; empty for a link
	Bound string `json:"bound,omitempty"` // of a handoff: the hash of the secret that the browser holds
	Login ID     `json:"login,omitzero"`  // of a session and a handoff: the login it belongs to
	Apex  bool   `json:"apex,omitzero"`   // that is one at the domain itself
	Until int64  `json:"until,omitzero"`  // with Login: when that ends, in Unix seconds

	By gateway.Principal `json:"by,omitzero"` // of a visit, whose Login is the link: who made that
}

func (g grant) session(person gateway.Principal) Session {
	return Session{Person: person, Login: g.Login, Apex: g.Apex, Until: time.Unix(g.Until, 0)}
}

func (s Session) grant(host string) grant {
	return grant{Host: host, Login: s.Login, Apex: s.Apex, Until: s.Until.Unix()}
}

// issue makes and stores a secret.
func (h *Handler) issue(ctx context.Context, kind string, vm gateway.ID, person gateway.Principal, g grant, life time.Duration) (string, error) {
	data, err := json.Marshal(g)
	if err != nil {
		return "", err
	}
	secret := browser.NewSecret()
	hash, _ := browser.Hash(secret) // NewSecret made it
	err = h.put(ctx, gateway.SecretKey{Kind: kind, Hash: hash}, gateway.Secret{
		VM: vm, Person: person, Data: string(data), Expires: time.Now().Add(life),
	})
	if err != nil {
		return "", fmt.Errorf("store %s: %w", kind, err)
	}
	return secret, nil
}

// put stores a secret, and ends what made room for it, as its removal does.
func (h *Handler) put(ctx context.Context, key gateway.SecretKey, secret gateway.Secret) error {
	displaced, err := h.Store.PutSecret(ctx, key, secret)
	if displaced != (gateway.Displaced{}) {
		h.seen.removeRecord(displaced)
		h.ended(displaced.VM, displaced.Key.Hash)
		h.auditDisplaced(ctx, displaced)
	}
	return err
}

// auditDisplaced records the end of what somebody would miss.
func (h *Handler) auditDisplaced(ctx context.Context, displaced gateway.Displaced) {
	event, ok := map[string]gateway.AuditEvent{
		kindLogin: gateway.EventLogout, string(gateway.LinkPass): gateway.EventLinkRemoved, string(gateway.TokenPass): gateway.EventTokenRemoved,
	}[displaced.Key.Kind]
	if ok {
		gateway.Audit(ctx, h.Logger, event, slog.String("person", h.Policy.People.Name(displaced.Person)), slog.String("id", passID(displaced.Key.Hash)))
	}
}

// ended ends what rests on a secret that was removed from the store.
func (h *Handler) ended(vm gateway.ID, id ID) {
	h.RemoveLogin(id)
	h.Ended(vm, id)
}

// peek reads a secret that works once, and leaves it.
func (s *sessions) peek(ctx context.Context, kind, secret string) (gateway.Secret, error) {
	hash, ok := browser.Hash(secret)
	if !ok {
		return gateway.Secret{}, errNoSecret()
	}
	return s.store.LookSecret(ctx, gateway.SecretKey{Kind: kind, Hash: hash}, time.Now())
}

// take reads a secret and removes it.
func (s *sessions) take(ctx context.Context, kind, secret string) (gateway.Secret, grant, error) {
	hash, ok := browser.Hash(secret)
	if !ok {
		return gateway.Secret{}, grant{}, errNoSecret()
	}
	found, err := s.store.ChangeSecret(ctx, gateway.SecretKey{Kind: kind, Hash: hash}, time.Now(), nil)
	if err != nil {
		return gateway.Secret{}, grant{}, err
	}
	g, err := readGrant(found)
	return found, g, err
}

func readGrant(s gateway.Secret) (g grant, err error) {
	if err := json.Unmarshal([]byte(s.Data), &g); err != nil {
		return grant{}, fmt.Errorf("read what a secret grants: %w", err)
	}
	return g, nil
}

func errNoSecret() error { return gateway.Errorf(gateway.KindNotFound, "not a secret of this host") }
