package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"lodge/gateway"
)

// VMs implements gateway.Records.
func (s *Store) VMs(ctx context.Context) ([]gateway.VM, error) {
	definitions, err := query(ctx, s.db, func(text *[]byte) []any { return []any{text} },
		`SELECT definition FROM machines ORDER BY number`)
	if err != nil {
		return nil, refine(err)
	}
	all := make([]gateway.VM, len(definitions))
	for i, definition := range definitions {
		if err := json.Unmarshal(definition, &all[i]); err != nil {
			return nil, fmt.Errorf("decode VM: %w", err)
		}
	}
	return all, nil
}

// Create implements gateway.Records.
func (s *Store) Create(ctx context.Context, m gateway.VM) (gateway.VM, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return m, refine(err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	if m.Addr, err = s.freeAddr(ctx, tx); err != nil {
		return m, refine(err)
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO machines (id, name, addr, definition) VALUES (?, ?, ?, '')`,
		m.ID[:], m.Name, m.Addr.String())
	if isUnique(err) {
		return m, gateway.Errorf(gateway.KindTaken, "there is a VM named %q already", m.Name)
	}
	if err != nil {
		return m, refine(err)
	}
	number, err := res.LastInsertId()
	if err != nil {
		return m, err
	}
	if m.Number = uint32(number); int64(m.Number) != number { //nolint:gosec // checked right here
		return m, errors.New("all 4,294,967,295 VM numbers are used up")
	}
	if err := save(ctx, tx, m); err != nil {
		return m, refine(err)
	}
	return m, refine(tx.Commit())
}

// Save implements gateway.Records.
func (s *Store) Save(ctx context.Context, m gateway.VM) error {
	err := save(ctx, s.db, m)
	if isUnique(err) {
		return gateway.Errorf(gateway.KindTaken, "there is a VM named %q already", m.Name)
	}
	return refine(err)
}

// Delete implements gateway.Records. The VM's logins go with it.
func (s *Store) Delete(ctx context.Context, id gateway.ID) error {
	if err := s.Logins().ForgetTokens(ctx, id); err != nil {
		return err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return refine(err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	until := s.now().Add(AddressRest).Unix()
	for _, do := range []struct {
		query string
		args  []any
	}{
		{`INSERT OR REPLACE INTO resting (addr, until) SELECT addr, ? FROM machines WHERE id = ?`, []any{until, id[:]}},
		{`DELETE FROM machines WHERE id = ?`, []any{id[:]}},
	} {
		if _, err := tx.ExecContext(ctx, do.query, do.args...); err != nil {
			return refine(err)
		}
	}
	return refine(tx.Commit())
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func save(ctx context.Context, db execer, m gateway.VM) error {
	definition, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode machine: %w", err)
	}
	_, err = db.ExecContext(ctx, `UPDATE machines SET name = ?, removed = ?, definition = ? WHERE id = ?`,
		m.Name, m.Desired == gateway.Removed, string(definition), m.ID[:])
	return err
}

// freeAddr picks the lowest address of the guest net that no VM has and that does not rest. The
// net's first two addresses and its last are left out.
func (s *Store) freeAddr(ctx context.Context, tx *sql.Tx) (netip.Addr, error) {
	if _, err := tx.ExecContext(ctx, `DELETE FROM resting WHERE until <= ?`, s.now().Unix()); err != nil {
		return netip.Addr{}, err
	}
	rows, err := tx.QueryContext(ctx, `SELECT addr FROM machines UNION SELECT addr FROM resting`)
	if err != nil {
		return netip.Addr{}, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err says all there is
	used := map[string]bool{}
	for rows.Next() {
		var addr string
		if err := rows.Scan(&addr); err != nil {
			return netip.Addr{}, err
		}
		used[addr] = true
	}
	if err := rows.Err(); err != nil {
		return netip.Addr{}, err
	}
	for a := s.net.Addr().Next().Next(); s.net.Contains(a.Next()); a = a.Next() {
		if !used[a.String()] {
			return a, nil
		}
	}
	return netip.Addr{}, gateway.Errorf(gateway.KindNoSpace, "every address of %s is in use or was until a moment ago", s.net).
		WithHint("Remove a VM and wait 15 minutes, or set a larger guest_net.")
}

func isUnique(err error) bool {
	sqliteErr, ok := errors.AsType[*sqlite.Error](err)
	return ok && sqliteErr.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}
