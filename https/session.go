package https

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/names"
)

// Logins keeps what people hold in secret: one-time links, hops and sessions. Only the SHA-256 of a secret is stored, with the VM
// it is for and a few bytes of ours. A secret that is missing, used up or expired at now is a KindNotFound error.
type Logins interface {
	PutToken(ctx context.Context, kind string, hash [32]byte, vm gateway.ID, data string, expires time.Time) error
	// TakeToken reads and deletes in one step: of any number of callers, exactly one gets it.
	TakeToken(ctx context.Context, kind string, hash [32]byte, now time.Time) (vm gateway.ID, data string, err error)
	LookToken(ctx context.Context, kind string, hash [32]byte, now time.Time) (vm gateway.ID, data string, err error)
	// ForgetTokens deletes all that is for a VM.
	ForgetTokens(ctx context.Context, vm gateway.ID) error
}

// The kinds of secrets, and how long they live.
const (
	kindLink    = "link"
	kindHop     = "hop"
	kindSession = "session"

	linkLife    = 15 * time.Minute
	hopLife     = time.Minute
	sessionLife = 30 * 24 * time.Hour
)

// grant is what a secret is good for. It is stored as JSON beside the VM's ID.
type grant struct {
	Person string `json:"person"`
	Host   string `json:"host,omitempty"`  // the one host name at which it counts; empty for a link
	Bound  string `json:"bound,omitempty"` // of a hop: the hash of the secret that the browser holds
}

// newSecret makes 256 random bits in base64url, which is safe in URLs and cookies.
func newSecret() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails (it aborts the program instead)
	return base64.RawURLEncoding.EncodeToString(b)
}

// secretHash is what is stored of a secret. False: it is none of ours, and nobody has to be asked.
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
	hash, _ := secretHash(secret) // ours by construction
	if err := s.logins.PutToken(ctx, kind, hash, vm, string(data), time.Now().Add(life)); err != nil {
		return "", fmt.Errorf("store %s: %w", kind, err)
	}
	return secret, nil
}

// take uses a secret up.
func (s *sessions) take(ctx context.Context, kind, secret string) (gateway.ID, grant, error) {
	hash, ok := secretHash(secret)
	if !ok {
		return gateway.ID{}, grant{}, gateway.Errorf(gateway.KindNotFound, "not a login secret")
	}
	vm, data, err := s.logins.TakeToken(ctx, kind, hash, time.Now())
	return read(vm, data, err)
}

func read(vm gateway.ID, data string, err error) (gateway.ID, grant, error) {
	var g grant
	if err == nil {
		err = json.Unmarshal([]byte(data), &g)
	}
	return vm, g, err
}

// sessions finds sessions, and remembers those it has found for a moment.
type sessions struct {
	logins Logins
	mu     sync.Mutex
	known  map[[32]byte]knownSession
}

type knownSession struct {
	vm    gateway.ID
	grant grant
	until time.Time
}

const (
	sessionMemory = 5 * time.Second
	maxKnown      = 4096
)

func newSessions(logins Logins) *sessions {
	return &sessions{logins: logins, known: map[[32]byte]knownSession{}}
}

// look finds a session by its secret. The error is KindNotFound when there is none.
func (s *sessions) look(ctx context.Context, secret string) (gateway.ID, grant, error) {
	hash, ok := secretHash(secret)
	if !ok {
		return gateway.ID{}, grant{}, gateway.Errorf(gateway.KindNotFound, "not a session")
	}
	now := time.Now()
	s.mu.Lock()
	have, ok := s.known[hash]
	s.mu.Unlock()
	if ok && now.Before(have.until) {
		return have.vm, have.grant, nil
	}
	vm, data, err := s.logins.LookToken(ctx, kindSession, hash, now)
	id, g, err := read(vm, data, err)
	if err == nil {
		s.remember(hash, knownSession{id, g, now.Add(sessionMemory)})
	}
	return id, g, err
}

func (s *sessions) remember(hash [32]byte, k knownSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnown {
		clear(s.known) // they are found again
	}
	s.known[hash] = k
}

func (s *sessions) forget(vm gateway.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, k := range s.known {
		if k.vm == vm {
			delete(s.known, hash)
		}
	}
}

// session says which person's session the request carries. It counts only at the very name it was made for, and only as
// long as that name is of the same VM.
func (s *Server) session(r *http.Request, rt names.Route) (person string, ok bool) {
	for _, cookie := range r.CookiesNamed(sessionCookie) {
		vm, g, err := s.sessions.look(r.Context(), cookie.Value)
		if err == nil && vm == rt.VM.ID && g.Host == rt.Host {
			return g.Person, true
		}
		if err != nil && gateway.KindOf(err) != gateway.KindNotFound && r.Context().Err() == nil {
			s.Logger.Warn("session lookup failed", "vm", rt.VM.Name, "err", err)
		}
	}
	return "", false
}

func setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	cookie := &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
	if life == 0 {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, cookie)
}
