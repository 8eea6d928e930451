package login

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/login/browser"
	"lodge/https/names"
)

// ID identifies one login of a person, from its beginning to the logout: at one VM, by a link, or at the
// domain itself, for all VMs. It is the SHA-256 of a secret. The sessions at VMs' names belong to it and
// end with it.
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
	ID     ID // its own; what it belongs to is Login
	Person gateway.Principal
	Mail   string // the person's address now
	Login  ID
	Apex   bool      // the login is one at the domain itself, for all VMs
	Until  time.Time // the end of the login, at the latest
}

// maxSessionCookies are looked up: browsers send one, and each costs a look into the store.
const maxSessionCookies = 2

// Session returns the session that the request carries. It is valid only at the host name it was made
// for, only while that name belongs to the same VM, and as long as its login and its person are there.
func (h *Handler) Session(r *http.Request, rt names.Route) (s Session, ok bool) {
	for secret := range cookies(r.Header, sessionCookie, maxSessionCookies) {
		k, err := h.sessions.look(r.Context(), kindSession, secret)
		if err == nil && k.VM == rt.VM.ID && k.Host == rt.Host {
			person, there := h.Policy.People.Person(k.Person)
			if !there {
				continue
			}
			h.note(r, rt, k.Person)
			s = k.session(k.Person)
			s.ID, s.Mail = k.key.Hash, person.Mail
			return s, true
		}
		if err != nil && gateway.KindOf(err) != gateway.KindNotFound && r.Context().Err() == nil {
			h.Logger.With(gateway.LogVM(rt.VM.Identity)).Warn("session lookup failed", "err", err)
		}
	}
	return Session{}, false
}

// cookies yields the values of the first cookies of a name, at most limit.
func cookies(h http.Header, name string, limit int) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, line := range h["Cookie"] {
			for line != "" && limit > 0 {
				var pair string
				pair, line, _ = strings.Cut(line, ";")
				key, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
				if key != name {
					continue
				}
				limit--
				if !yield(value) {
					return
				}
			}
		}
	}
}

// sessions finds sessions in the store, and caches them for sessionMemory.
type sessions struct {
	store   Store
	apex    Apex
	mu      sync.Mutex
	cache   map[gateway.SecretKey]known
	removed uint64 // counts removals: what was read before one is not cached after it
}

// known is a secret that was found.
type known struct {
	gateway.Secret
	grant
	passData // of a token

	key   gateway.SecretKey
	until time.Time // of its place in the cache
}

const (
	sessionMemory = 5 * time.Second
	maxKnown      = 4096
)

func newSessions(cfg Config) *sessions {
	return &sessions{store: cfg.Store, apex: cfg.Apex, cache: map[gateway.SecretKey]known{}}
}

// look finds a secret that is used again and again. The error is KindNotFound when there is none.
func (s *sessions) look(ctx context.Context, kind, secret string) (known, error) {
	hash, ok := browser.Hash(secret)
	if !ok {
		return known{}, errNoSecret()
	}
	key, now := gateway.SecretKey{Kind: kind, Hash: hash}, time.Now()
	s.mu.Lock()
	k, ok := s.cache[key]
	removed := s.removed
	s.mu.Unlock()
	if ok && now.Before(k.until) {
		return k, nil
	}
	k, err := s.find(ctx, key, now)
	if err == nil {
		s.keep(key, k, removed)
	}
	return k, err
}

// parentOf returns the kind of what a secret of a kind belongs to, and ends with.
func parentOf(kind string) (parent string, ok bool) {
	switch kind {
	case kindSession:
		return kindLogin, true
	case kindVisit:
		return string(gateway.LinkPass), true
	}
	return "", false
}

// find looks a secret up in the store, with the login or the link that it belongs to.
func (s *sessions) find(ctx context.Context, key gateway.SecretKey, now time.Time) (k known, err error) {
	k.key = key
	if k.Secret, err = s.store.LookSecret(ctx, key, now); err != nil {
		return known{}, err
	}
	end := k.Expires
	if parent, ok := parentOf(key.Kind); ok {
		if k.grant, err = readGrant(k.Secret); err != nil {
			return known{}, err
		}
		if login := time.Unix(k.Until, 0); login.Before(end) {
			end = login
		}
		if err := s.lasts(ctx, parent, k, now); err != nil {
			return known{}, err
		}
	} else if err := json.Unmarshal([]byte(k.Data), &k.passData); err != nil {
		return known{}, fmt.Errorf("read a token: %w", err)
	}
	if !now.Before(end) {
		return known{}, errNoSecret()
	}
	if k.until = now.Add(sessionMemory); end.Before(k.until) {
		k.until = end
	}
	return k, nil
}

// lasts reports whether what a secret belongs to has not ended. The error is KindNotFound when it has.
func (s *sessions) lasts(ctx context.Context, parent string, k known, now time.Time) error {
	if k.Apex {
		return s.apex.Lasts(ctx, k.Person, k.Login)
	}
	_, err := s.store.LookSecret(ctx, gateway.SecretKey{Kind: parent, Hash: k.Login}, now)
	return err
}

func (s *sessions) keep(key gateway.SecretKey, k known, removed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.removed != removed {
		return
	}
	if len(s.cache) >= maxKnown {
		clear(s.cache) // they are read again
	}
	s.cache[key] = k
}

// remove removes the cached secrets for which which returns true. Call it after their removal from the
// store.
func (s *sessions) remove(which func(known) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed++
	for key, k := range s.cache {
		if which(k) {
			delete(s.cache, key)
		}
	}
}
