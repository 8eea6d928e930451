package store

import (
	"context"
	"database/sql"
	"time"

	"lodge/gateway"
)

// Logins keeps secrets of limited life (one-time links, sessions) by their SHA-256: who reads the
// file learns none.
type Logins struct {
	db  *sql.DB
	now func() time.Time
}

// Logins returns the part of the store that keeps logins.
func (s *Store) Logins() *Logins { return &Logins{db: s.db, now: s.now} }

// PutToken stores what a secret of that kind grants until it expires. Expired ones are swept out on
// the way.
func (l *Logins) PutToken(ctx context.Context, kind string, hash [32]byte, vm gateway.ID, data string, expires time.Time) error {
	if _, err := l.db.ExecContext(ctx, `DELETE FROM tokens WHERE expires <= ?`, l.now().Unix()); err != nil {
		return refine(err)
	}
	_, err := l.db.ExecContext(ctx, `INSERT OR REPLACE INTO tokens (kind, hash, vm, data, expires) VALUES (?, ?, ?, ?, ?)`,
		kind, hash[:], vm[:], data, expires.Unix())
	return refine(err)
}

// TakeToken reads a token and deletes it in one step: of any number of callers exactly one gets it,
// all others KindNotFound.
func (l *Logins) TakeToken(ctx context.Context, kind string, hash [32]byte, now time.Time) (gateway.ID, string, error) {
	return scanToken(l.db.QueryRowContext(ctx,
		`DELETE FROM tokens WHERE kind = ? AND hash = ? AND expires > ? RETURNING vm, data`, kind, hash[:], now.Unix()))
}

// LookToken reads a token and leaves it. A missing or expired one is KindNotFound.
func (l *Logins) LookToken(ctx context.Context, kind string, hash [32]byte, now time.Time) (gateway.ID, string, error) {
	return scanToken(l.db.QueryRowContext(ctx,
		`SELECT vm, data FROM tokens WHERE kind = ? AND hash = ? AND expires > ?`, kind, hash[:], now.Unix()))
}

// ForgetTokens deletes all tokens of a VM.
func (l *Logins) ForgetTokens(ctx context.Context, vm gateway.ID) error {
	_, err := l.db.ExecContext(ctx, `DELETE FROM tokens WHERE vm = ?`, vm[:])
	return refine(err)
}

func scanToken(row *sql.Row) (gateway.ID, string, error) {
	var vm []byte
	var data string
	if err := row.Scan(&vm, &data); err != nil {
		return gateway.ID{}, "", refine(err)
	}
	if len(vm) != len(gateway.ID{}) {
		return gateway.ID{}, "", errCorrupt
	}
	return gateway.ID(vm), data, nil
}
