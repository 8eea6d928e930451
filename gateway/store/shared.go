package store

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"lodge/gateway"
)

// keptRevisions is how far back a Watch can begin. On one host, watchers are in this process and
// close behind.
const keptRevisions = 1000

// Shared is gateway.Shared in the SQLite file, for the one host that has it open.
type Shared struct {
	db     *sql.DB
	leases *leases

	mu      sync.Mutex
	changed chan struct{} // closed and replaced after each change
}

// newShared needs the tables of the migrations. Leases of an earlier run begin their life anew.
func newShared(ctx context.Context, db *sql.DB) (*Shared, error) {
	s := &Shared{db: db, changed: make(chan struct{})}
	var err error
	s.leases, err = startLeases(ctx, s)
	return s, err
}

// stop ends what runs in the background; the file is closed after it.
func (s *Shared) stop() { s.leases.stop() }

// Get implements gateway.Shared.
func (s *Shared) Get(ctx context.Context, key string) (gateway.Entry, error) {
	e := gateway.Entry{Key: key}
	err := s.db.QueryRowContext(ctx, `SELECT value, revision FROM shared WHERE key = ?`, []byte(key)).Scan(&e.Value, &e.Rev)
	return e, refine(err)
}

// List implements gateway.Shared.
func (s *Shared) List(ctx context.Context, prefix string) (all []gateway.Entry, rev gateway.Revision, err error) {
	err = s.atomically(ctx, func(tx *sql.Tx) error {
		if rev, _, err = head(ctx, tx); err != nil {
			return err
		}
		first, end := keyRange(prefix)
		all, err = query(ctx, tx, intoEntry, `SELECT key, value, revision FROM shared WHERE key >= ? AND key < ? ORDER BY key`, first, end)
		return err
	})
	return all, rev, err
}

// Commit implements gateway.Shared.
func (s *Shared) Commit(ctx context.Context, still []gateway.Cond, do []gateway.Op) (rev gateway.Revision, err error) {
	if err := checkCommit(still, do); err != nil {
		return 0, err
	}
	err = s.change(ctx, func(c *change) error {
		for _, cond := range still {
			if err := c.check(ctx, cond); err != nil {
				return err
			}
		}
		for _, op := range do {
			if err := c.apply(ctx, op); err != nil {
				return err
			}
		}
		rev = c.now()
		return nil
	})
	return rev, err
}

// Compact drops the changes up to a revision: a Watch after an earlier one ends with
// gateway.ErrCompacted.
func (s *Shared) Compact(ctx context.Context, upTo gateway.Revision) error {
	return s.atomically(ctx, func(tx *sql.Tx) error { return compact(ctx, tx, upTo) })
}

// change carries out f as one change with one revision. Watchers receive it once it is on disk.
func (s *Shared) change(ctx context.Context, f func(*change) error) error {
	c := &change{}
	err := s.atomically(ctx, func(tx *sql.Tx) (err error) {
		c.tx = tx
		if c.before, _, err = head(ctx, tx); err != nil {
			return err
		}
		if err = f(c); err != nil || c.changes == 0 {
			return err
		}
		if _, err = tx.ExecContext(ctx, `UPDATE shared_head SET revision = ?`, c.now()); err != nil {
			return err
		}
		return compact(ctx, tx, c.now()-keptRevisions)
	})
	if err == nil && c.changes > 0 {
		s.notify()
	}
	return err
}

// atomically runs f in a transaction, which is synced when this returns nil.
func (s *Shared) atomically(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return refine(err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	if err := f(tx); err != nil {
		return refine(err)
	}
	return refine(tx.Commit())
}

func (s *Shared) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// next returns a channel that is closed at the next change.
func (s *Shared) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// change is a change that is under way.
type change struct {
	tx      *sql.Tx
	before  gateway.Revision
	changes int // to keys, so far
}

// now is the revision of the change; of one that has changed nothing, that before it.
func (c *change) now() gateway.Revision {
	if c.changes == 0 {
		return c.before
	}
	return c.before + 1
}

func (c *change) check(ctx context.Context, cond gateway.Cond) error {
	var rev gateway.Revision
	err := c.tx.QueryRowContext(ctx, `SELECT revision FROM shared WHERE key = ?`, []byte(cond.Key)).Scan(&rev)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if rev != cond.Rev {
		return gateway.Errorf(gateway.KindConflict, "%q has changed", cond.Key)
	}
	return nil
}

func (c *change) apply(ctx context.Context, op gateway.Op) error {
	if op.Delete {
		return c.remove(ctx, op.Key)
	}
	if op.Lease != 0 {
		if err := leaseExists(ctx, c.tx, op.Lease); err != nil {
			return err
		}
	}
	value := op.Value
	if value == nil {
		value = []byte{} // a nil slice would be NULL
	}
	c.changes++
	if _, err := c.tx.ExecContext(ctx, `INSERT OR REPLACE INTO shared (key, value, revision, lease) VALUES (?, ?, ?, nullif(?, 0))`,
		[]byte(op.Key), value, c.now(), op.Lease); err != nil {
		return err
	}
	return c.record(ctx, op.Key, value)
}

func (c *change) remove(ctx context.Context, key string) error {
	res, err := c.tx.ExecContext(ctx, `DELETE FROM shared WHERE key = ?`, []byte(key))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); n == 0 {
		return err
	}
	c.changes++
	return c.record(ctx, key, nil)
}

// record keeps a change for Watch. A nil value is a deletion.
func (c *change) record(ctx context.Context, key string, value []byte) error {
	_, err := c.tx.ExecContext(ctx, `INSERT INTO shared_changes (revision, n, key, value) VALUES (?, ?, ?, ?)`,
		c.now(), c.changes, []byte(key), value)
	return err
}

// head reads the present revision, and the last one whose changes were dropped.
func head(ctx context.Context, tx *sql.Tx) (now, compacted gateway.Revision, err error) {
	err = tx.QueryRowContext(ctx, `SELECT revision, compacted FROM shared_head`).Scan(&now, &compacted)
	return now, compacted, err
}

func compact(ctx context.Context, tx *sql.Tx, upTo gateway.Revision) error {
	res, err := tx.ExecContext(ctx, `UPDATE shared_head SET compacted = ?1 WHERE compacted < ?1`, upTo)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); n == 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM shared_changes WHERE revision <= ?`, upTo)
	return err
}
