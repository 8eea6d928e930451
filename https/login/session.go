package login

import (
	"context"
	"net/http"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/names"
)

// Session returns the person whose session the request carries. A session is valid only at the host
// name it was made for, and only while that name belongs to the same VM.
func (h *Handler) Session(r *http.Request, rt names.Route) (person string, ok bool) {
	for _, cookie := range r.CookiesNamed(sessionCookie) {
		vm, g, err := h.sessions.look(r.Context(), cookie.Value)
		if err == nil && vm == rt.VM.ID && g.Host == rt.Host {
			return g.Person, true
		}
		if err != nil && gateway.KindOf(err) != gateway.KindNotFound && r.Context().Err() == nil {
			h.Logger.With(gateway.LogVM(rt.VM.Identity)).Warn("session lookup failed", "err", err)
		}
	}
	return "", false
}

// sessions finds sessions in the store, and caches them for sessionMemory.
type sessions struct {
	store Store
	mu    sync.Mutex
	known map[[32]byte]knownSession
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
	s.mu.Unlock()
	if ok && now.Before(have.until) {
		return have.vm, have.grant, nil
	}
	vm, data, err := s.store.LookToken(ctx, kindSession, hash, now)
	id, g, err := read(vm, data, err)
	if err == nil {
		s.keep(hash, knownSession{id, g, now.Add(sessionMemory)})
	}
	return id, g, err
}

func (s *sessions) keep(hash [32]byte, k knownSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnown {
		clear(s.known) // they are read again
	}
	s.known[hash] = k
}

func (s *sessions) remove(vm gateway.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for hash, k := range s.known {
		if k.vm == vm {
			delete(s.known, hash)
		}
	}
}
