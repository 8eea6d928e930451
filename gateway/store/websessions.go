package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"lodge/gateway"
)

// webSessionPrefix is that of the keys of WebSessions in gateway.Shared:
// websession/<person>/<SHA-256 of the secret in hex>.
const webSessionPrefix = "websession/"

// WebSessions keeps the sessions of persons by the SHA-256 of their secrets, so the file does not
// contain them. What a call changes is synced to disk when it returns.
type WebSessions struct {
	shared gateway.Shared
	now    func() time.Time
}

// WebSessions returns the part of the store that keeps sessions of persons.
func (s *Store) WebSessions() *WebSessions { return &WebSessions{s.shared, s.now} }

// AddWebSession stores a session. It removes those of the person that have ended, and the one that was
// not used the longest when there are gateway.MaxWebSessions. Those are returned, with an error too.
func (w *WebSessions) AddWebSession(ctx context.Context, s gateway.WebSession) (removed []gateway.WebSession, err error) {
	if s.Person == 0 {
		return nil, gateway.Invalid("a session needs a person")
	}
	all, err := w.list(ctx, s.Person)
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b gateway.WebSession) int { return cmp.Compare(a.Seen.UnixNano(), b.Seen.UnixNano()) })
	now, excess := w.now(), len(all)+1-gateway.MaxWebSessions
	do := []gateway.Op{{Key: webSessionKey(s.Person, s.ID), Value: value}}
	for i, old := range all {
		if i < excess || !now.Before(old.Until) {
			do = append(do, gateway.Op{Key: webSessionKey(s.Person, old.ID), Delete: true})
			removed = append(removed, old)
		}
	}
	return removed, commitAll(ctx, w.shared, do)
}

// WebSession returns a person's session. One that is missing or has ended is KindNotFound.
func (w *WebSessions) WebSession(ctx context.Context, person gateway.Principal, id [32]byte) (gateway.WebSession, error) {
	entry, err := w.shared.Get(ctx, webSessionKey(person, id))
	if err != nil {
		return gateway.WebSession{}, err
	}
	s, err := decodeWebSession(entry)
	if err == nil && (!w.now().Before(s.Until) || s.Person != person) {
		err = gateway.Errorf(gateway.KindNotFound, "the session has ended")
	}
	if err != nil {
		return gateway.WebSession{}, err
	}
	return s, nil
}

// WebSessions returns a person's sessions, the last used first.
func (w *WebSessions) WebSessions(ctx context.Context, person gateway.Principal) ([]gateway.WebSession, error) {
	all, err := w.list(ctx, person)
	now := w.now()
	all = slices.DeleteFunc(all, func(s gateway.WebSession) bool { return !now.Before(s.Until) })
	slices.SortFunc(all, func(a, b gateway.WebSession) int { return cmp.Compare(b.Seen.UnixNano(), a.Seen.UnixNano()) })
	return all, err
}

// SeeWebSession notes the use of a session. One that was removed meanwhile stays removed, which is
// KindNotFound.
func (w *WebSessions) SeeWebSession(ctx context.Context, person gateway.Principal, id [32]byte, seen time.Time, from string) error {
	key := webSessionKey(person, id)
	for {
		entry, err := w.shared.Get(ctx, key)
		if err != nil {
			return err
		}
		s, err := decodeWebSession(entry)
		if err != nil {
			return err
		}
		s.Seen, s.From = seen, from
		value, err := json.Marshal(s)
		if err != nil {
			return err
		}
		_, err = w.shared.Commit(ctx, []gateway.Cond{{Key: key, Rev: entry.Rev}}, []gateway.Op{{Key: key, Value: value}})
		if gateway.KindOf(err) != gateway.KindConflict {
			return err
		}
	}
}

// RemoveWebSessions removes the sessions of a person for which which returns true, and returns them.
func (w *WebSessions) RemoveWebSessions(ctx context.Context, person gateway.Principal, which func(gateway.WebSession) bool) ([]gateway.WebSession, error) {
	all, err := w.list(ctx, person)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s gateway.WebSession) bool { return !which(s) })
	var do []gateway.Op
	for _, s := range all {
		do = append(do, gateway.Op{Key: webSessionKey(person, s.ID), Delete: true})
	}
	return all, commitAll(ctx, w.shared, do)
}

func (w *WebSessions) list(ctx context.Context, person gateway.Principal) ([]gateway.WebSession, error) {
	entries, _, err := w.shared.List(ctx, webSessionPrefix+strconv.FormatUint(uint64(person), 10)+"/")
	if err != nil {
		return nil, err
	}
	all := make([]gateway.WebSession, 0, len(entries))
	for _, entry := range entries {
		s, err := decodeWebSession(entry)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func webSessionKey(person gateway.Principal, id [32]byte) string {
	return webSessionPrefix + strconv.FormatUint(uint64(person), 10) + "/" + hex.EncodeToString(id[:])
}

func decodeWebSession(entry gateway.Entry) (s gateway.WebSession, err error) {
	_, id, _ := strings.Cut(strings.TrimPrefix(entry.Key, webSessionPrefix), "/")
	if err = json.Unmarshal(entry.Value, &s); err == nil && hex.DecodedLen(len(id)) == len(s.ID) {
		_, err = hex.Decode(s.ID[:], []byte(id))
	}
	if err != nil || s.ID == [32]byte{} {
		return gateway.WebSession{}, errCorrupt
	}
	return s, nil
}
