package store

import (
	"context"
	"database/sql"
	"iter"

	"lodge/gateway"
)

// Watch implements gateway.Shared.
func (s *Shared) Watch(ctx context.Context, prefix string, after gateway.Revision) iter.Seq2[gateway.Event, error] {
	return func(yield func(gateway.Event, error) bool) {
		for {
			changed := s.next() // before the read, so that no change falls between
			events, upTo, err := s.changesAfter(ctx, prefix, after)
			if err != nil {
				yield(gateway.Event{}, err)
				return
			}
			for _, event := range events {
				if !yield(event, nil) {
					return
				}
			}
			if after = upTo; len(events) > 0 {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(gateway.Event{}, ctx.Err())
				return
			}
		}
	}
}

// changesAfter reads the changes of the first revision after the given one that has any with the
// prefix, and returns that revision; without any, the present one.
func (s *Shared) changesAfter(ctx context.Context, prefix string, after gateway.Revision) (
	events []gateway.Event, upTo gateway.Revision, err error,
) {
	first, end := keyRange(prefix)
	err = s.atomically(ctx, func(tx *sql.Tx) error {
		now, compacted, err := head(ctx, tx)
		if err != nil {
			return err
		}
		if after < compacted {
			return gateway.ErrCompacted
		}
		upTo = max(now, after)
		events, err = query(ctx, tx, intoEvent, `SELECT key, value, revision, value IS NULL FROM shared_changes
			WHERE revision = (SELECT min(revision) FROM shared_changes WHERE revision > ?1 AND key >= ?2 AND key < ?3)
			AND key >= ?2 AND key < ?3 ORDER BY n`, after, first, end)
		if len(events) > 0 {
			upTo = events[0].Rev
		}
		return err
	})
	return events, upTo, err
}
