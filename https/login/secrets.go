package login

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"lodge/gateway"
)

// Store keeps the secrets that people hold: one-time links, codes and sessions. Of a secret it has
// the SHA-256, the VM it is for and a few bytes of data. A secret that is missing, used or expired
// at now is a KindNotFound error.
type Store interface {
	PutToken(ctx context.Context, kind string, hash [32]byte, vm gateway.ID, data string, expires time.Time) error
	// TakeToken reads and removes in one step: of any number of callers, exactly one gets it.
	TakeToken(ctx context.Context, kind string, hash [32]byte, now time.Time) (vm gateway.ID, data string, err error)
	LookToken(ctx context.Context, kind string, hash [32]byte, now time.Time) (vm gateway.ID, data string, err error)
	// RemoveTokens removes all secrets of a VM.
	RemoveTokens(ctx context.Context, vm gateway.ID) error
}

// The kinds of secrets, and how long they live.
const (
	kindLink    = "link"
	kindLogin   = "login" // its hash is the login's ID; the secret is not kept
	kindHandoff = "handoff"
	kindSeen    = "seen" // no secret, but a hash too: see seen
	kindSession = "session"

	linkLife    = 15 * time.Minute
	handoffLife = time.Minute
	loginLife   = 30 * 24 * time.Hour
)

// grant is what a secret allows. It is stored as JSON beside the VM's ID.
type grant struct {
	Person string `json:"person"`
	Host   string `json:"host,omitempty"`  // the one host name at which it is valid; empty for a link
	Bound  string `json:"bound,omitempty"` // of a handoff: the hash of the secret that the browser holds
	Login  ID     `json:"login,omitzero"`  // of a session and a handoff: the login it belongs to
	Until  int64  `json:"until,omitzero"`  // with Login: when that ends, in Unix seconds
}

func (g grant) session() Session { return Session{g.Person, g.Login, time.Unix(g.Until, 0)} }

func (s Session) grant(host string) grant {
	return grant{Person: s.Person, Host: host, Login: s.Login, Until: s.Until.Unix()}
}

// newSecret returns 256 random bits in base64url, which is safe in URLs and cookies.
func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (it aborts the program instead)
	return base64.RawURLEncoding.EncodeToString(b)
}

// secretHash returns what is stored of a secret. It is false for a string that newSecret cannot
// return.
func secretHash(secret string) ([32]byte, bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || len(raw) != 32 {
		return [32]byte{}, false
	}
	return sha256.Sum256(raw), true
}

// issue makes and stores a secret.
func (s *sessions) issue(ctx context.Context, kind string, vm gateway.ID, g grant, life time.Duration) (string, error) {
	data, err := json.Marshal(g)
	if err != nil {
		return "", err
	}
	secret := newSecret()
	hash, _ := secretHash(secret) // newSecret made it
	if err := s.store.PutToken(ctx, kind, hash, vm, string(data), time.Now().Add(life)); err != nil {
		return "", fmt.Errorf("store %s: %w", kind, err)
	}
	return secret, nil
}

// take reads a secret and removes it.
func (s *sessions) take(ctx context.Context, kind, secret string) (gateway.ID, grant, error) {
	hash, ok := secretHash(secret)
	if !ok {
		return gateway.ID{}, grant{}, gateway.Errorf(gateway.KindNotFound, "not a login secret")
	}
	vm, data, err := s.store.TakeToken(ctx, kind, hash, time.Now())
	return read(vm, data, err)
}

func read(vm gateway.ID, data string, err error) (gateway.ID, grant, error) {
	var g grant
	if err == nil {
		err = json.Unmarshal([]byte(data), &g)
	}
	return vm, g, err
}
