package store

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"sync"
	"time"

	"lodge/gateway"
)

// tokenPrefix is that of the keys of Logins in gateway.Shared: token/<kind>/<SHA-256 in hex>.
const tokenPrefix = "token/"

// sweepEvery is how often PutToken removes what has expired.
const sweepEvery = time.Minute

// Logins keeps secrets of limited life (one-time links, sessions) by their SHA-256, so the file
// does not contain them.
type Logins struct {
	shared gateway.Shared
	now    func() time.Time

	mu    sync.Mutex
	swept time.Time
}

// token is the value of a token's key.
type token struct {
	VM      gateway.ID `json:"vm"`
	Data    string     `json:"data"`
	Expires int64      `json:"expires"` // Unix seconds
}

// Logins returns the part of the store that keeps logins.
func (s *Store) Logins() *Logins { return &Logins{shared: s.shared, now: s.now} }

// PutToken stores what a secret of that kind grants until it expires.
func (l *Logins) PutToken(ctx context.Context, kind string, hash [32]byte, vm gateway.ID, data string, expires time.Time) error {
	if err := l.sweep(ctx); err != nil {
		return err
	}
	value, err := json.Marshal(token{VM: vm, Data: data, Expires: expires.Unix()})
	if err != nil {
		return err
	}
	_, err = l.shared.Commit(ctx, nil, []gateway.Op{{Key: tokenKey(kind, hash), Value: value}})
	return err
}

// TakeToken reads a token and removes it in one step: of any number of callers exactly one gets it,
// all others KindNotFound.
func (l *Logins) TakeToken(ctx context.Context, kind string, hash [32]byte, now time.Time) (gateway.ID, string, error) {
	t, rev, err := l.look(ctx, kind, hash, now)
	if err != nil {
		return gateway.ID{}, "", err
	}
	key := tokenKey(kind, hash)
	_, err = l.shared.Commit(ctx, []gateway.Cond{{Key: key, Rev: rev}}, []gateway.Op{{Key: key, Delete: true}})
	if gateway.KindOf(err) == gateway.KindConflict { // another caller was first
		return gateway.ID{}, "", errNoToken()
	}
	if err != nil {
		return gateway.ID{}, "", err
	}
	return t.VM, t.Data, nil
}

// LookToken reads a token and leaves it. A missing or expired one is KindNotFound.
func (l *Logins) LookToken(ctx context.Context, kind string, hash [32]byte, now time.Time) (gateway.ID, string, error) {
	t, _, err := l.look(ctx, kind, hash, now)
	return t.VM, t.Data, err
}

// RemoveTokens removes all tokens of a VM.
func (l *Logins) RemoveTokens(ctx context.Context, vm gateway.ID) error {
	return l.remove(ctx, func(t token) bool { return t.VM == vm })
}

func (l *Logins) look(ctx context.Context, kind string, hash [32]byte, now time.Time) (token, gateway.Revision, error) {
	entry, err := l.shared.Get(ctx, tokenKey(kind, hash))
	if err != nil {
		return token{}, 0, err
	}
	t, err := decodeToken(entry)
	if err == nil && t.Expires <= now.Unix() {
		err = errNoToken()
	}
	if err != nil {
		return token{}, 0, err
	}
	return t, entry.Rev, nil
}

// sweep removes expired tokens, if that was not done a moment ago.
func (l *Logins) sweep(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if now.Sub(l.swept) < sweepEvery {
		return nil
	}
	if err := l.remove(ctx, func(t token) bool { return t.Expires <= now.Unix() }); err != nil {
		return err
	}
	l.swept = now
	return nil
}

// remove removes those tokens for which which returns true.
func (l *Logins) remove(ctx context.Context, which func(token) bool) error {
	entries, _, err := l.shared.List(ctx, tokenPrefix)
	if err != nil {
		return err
	}
	var do []gateway.Op
	for _, entry := range entries {
		if t, err := decodeToken(entry); err != nil || which(t) { // a damaged one is of no use
			do = append(do, gateway.Op{Key: entry.Key, Delete: true})
		}
	}
	return commitAll(ctx, l.shared, do)
}

func tokenKey(kind string, hash [32]byte) string {
	return tokenPrefix + kind + "/" + hex.EncodeToString(hash[:])
}

func decodeToken(entry gateway.Entry) (token, error) {
	var t token
	if err := json.Unmarshal(entry.Value, &t); err != nil {
		return token{}, errCorrupt
	}
	return t, nil
}

func errNoToken() error { return gateway.Errorf(gateway.KindNotFound, "the token is used or expired") }
