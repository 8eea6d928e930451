package login

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/names"
)

// ID identifies one login of a person at one VM, from the link to the logout. It is the SHA-256 of a
// secret that is not kept. The sessions at the VM's names belong to it and end with it.
type ID [32]byte

// MarshalText implements encoding.TextMarshaler, in hex.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(id)) {
		return errors.New("not the ID of a login")
	}
	_, err := hex.Decode(id[:], b)
	return err
}

// Session is what a request's cookie proves. The zero Session is that of a stranger.
type Session struct {
	Person string // e-mail address
	Login  ID
	Until  time.Time // the end of the login, at the latest
}

// maxSessionCookies are looked up: browsers send one, and each costs a read of the store.
const maxSessionCookies = 2

// Session returns the session that the request carries. It is valid only at the host name it was made
// for, only while that name belongs to the same VM, and as long as its login.
func (h *Handler) Session(r *http.Request, rt names.Route) (s Session, ok bool) {
	for i, cookie := range r.CookiesNamed(sessionCookie) {
		if i == maxSessionCookies {
			break
		}
		vm, g, err := h.sessions.look(r.Context(), cookie.Value)
		if err == nil && vm == rt.VM.ID && g.Host == rt.Host {
			h.note(r, rt)
			return g.session(), true
		}
		if err != nil && gateway.KindOf(err) != gateway.KindNotFound && r.Context().Err() == nil {
			h.Logger.With(gateway.LogVM(rt.VM.Identity)).Warn("session lookup failed", "err", err)
		}
	}
	return Session{}, false
}

// sessions finds sessions in the store, and caches them for sessionMemory.
type sessions struct {
	store   Store
	mu      sync.Mutex
	known   map[[32]byte]knownSession
	removed uint64 // counts removals: what was read before one is not cached after it
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

func newSessions(store Store) *sessions {
	return &sessions{store: store, known: map[[32]byte]knownSession{}}
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
	removed := s.removed
	s.mu.Unlock()
	if ok && now.Before(have.until) {
		return have.vm, have.grant, nil
	}
	vm, data, err := s.store.LookToken(ctx, kindSession, hash, now)
	id, g, err := read(vm, data, err)
	if err == nil && !now.Before(g.session().Until) {
		err = gateway.Errorf(gateway.KindNotFound, "the session has ended")
	}
	if err == nil {
		_, _, err = s.store.LookToken(ctx, kindLogin, g.Login, now)
	}
	if err == nil {
		until := now.Add(sessionMemory)
		if end := g.session().Until; end.Before(until) {
			until = end
		}
		s.keep(hash, knownSession{id, g, until}, removed)
	}
	return id, g, err
}

func (s *sessions) keep(hash [32]byte, k knownSession, removed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed != removed {
		return
	}
	if len(s.known) >= maxKnown {
		clear(s.known) // they are read again
	}
	s.known[hash] = k
}

// remove removes the cached sessions for which which returns true. Call it after their removal from
// the store.
func (s *sessions) remove(which func(gateway.ID, grant) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed++
	for hash, k := range s.known {
		if which(k.vm, k.grant) {
			delete(s.known, hash)
		}
	}
}
