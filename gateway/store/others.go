package store

import (
	"context"
	"strconv"
	"strings"

	"lodge/gateway"
)

// RemoveOthers removes the secrets, the logins and the passkeys of persons for whom known returns false:
// their IDs are never used again. What it has removed is synced to disk; after an error some may be left.
func (s *Store) RemoveOthers(ctx context.Context, known func(gateway.Principal) bool) error {
	if err := s.logins.removeOthers(ctx, known); err != nil {
		return err
	}
	sessions, err := s.personsOf(ctx, webSessionPrefix)
	if err != nil {
		return err
	}
	all := func(gateway.WebSession) bool { return true }
	for person := range sessions {
		if known(person) {
			continue
		}
		if _, err := s.WebSessions().RemoveWebSessions(ctx, person, all); err != nil {
			return err
		}
	}
	keys, err := s.personsOf(ctx, passkeysPrefix)
	if err != nil {
		return err
	}
	for person := range keys {
		if known(person) {
			continue
		}
		if err := s.Passkeys().RemovePasskeys(ctx, person); err != nil {
			return err
		}
	}
	return nil
}

// personsOf returns the persons whose number follows prefix in a key.
func (s *Store) personsOf(ctx context.Context, prefix string) (map[gateway.Principal]bool, error) {
	entries, _, err := s.shared.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	persons := map[gateway.Principal]bool{}
	for _, entry := range entries {
		number, _, _ := strings.Cut(strings.TrimPrefix(entry.Key, prefix), "/")
		person, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return nil, errCorrupt
		}
		persons[gateway.Principal(person)] = true
	}
	return persons, nil
}

func (l *Logins) removeOthers(ctx context.Context, known func(gateway.Principal) bool) error {
	l.write.Lock()
	defer l.write.Unlock()
	return l.remove(ctx, l.keys(func(_ gateway.SecretKey, h held) bool { return h.person != 0 && !known(h.person) }))
}
