package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

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
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.beginClaim(ctx); err != nil {
		return m, err
	}
	var err error
	if m.Identity, err = s.claim(ctx, m.ID, m.Name); err != nil {
		return m, err
	}
	if further := newKeys(gateway.VM{Identity: m.Identity}, m); len(further) > 0 {
		if err := s.claimKeys(ctx, m.ID, further); err != nil {
			return m, err
		}
	}
	definition, err := json.Marshal(m)
	if err != nil {
		return m, fmt.Errorf("encode VM: %w", err)
	}
	if _, err = s.db.ExecContext(ctx, `INSERT INTO machines (number, id, name, addr, removed, definition) VALUES (?, ?, ?, ?, ?, ?)`,
		m.Number, m.ID[:], m.Name, m.Addr.String(), m.Desired == gateway.Removed, string(definition)); err != nil {
		return m, refine(err)
	}
	s.strays = false
	return m, nil
}

// Save implements gateway.Records.
func (s *Store) Save(ctx context.Context, m gateway.VM) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.read(ctx, m.ID)
	if err != nil {
		return err
	}
	claimed, released := newKeys(old, m), newKeys(m, old)
	if len(claimed) > 0 {
		if err := s.beginClaim(ctx); err != nil {
			return err
		}
		if err := s.claimKeys(ctx, m.ID, claimed); err != nil {
			return err
		}
	}
	definition, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode VM: %w", err)
	}
	if _, err = s.db.ExecContext(ctx, `UPDATE machines SET name = ?, removed = ?, definition = ? WHERE id = ?`,
		m.Name, m.Desired == gateway.Removed, string(definition), m.ID[:]); err != nil {
		return refine(err)
	}
	if len(claimed) > 0 {
		s.strays = false
	}
	if len(released) > 0 {
		_ = s.releaseStrays(ctx) // the VM is saved; what is left is released before the next claim
	}
	return nil
}

// beginClaim releases strays, so that none is in the way, and records that there may be new ones
// from the claim to the row. The caller holds s.mu.
func (s *Store) beginClaim(ctx context.Context) error {
	if s.strays {
		if err := s.releaseStrays(ctx); err != nil {
			return err
		}
	}
	s.strays = true
	return nil
}

// read reads one VM.
func (s *Store) read(ctx context.Context, id gateway.ID) (m gateway.VM, err error) {
	var definition []byte
	if err := s.db.QueryRowContext(ctx, `SELECT definition FROM machines WHERE id = ?`, id[:]).Scan(&definition); err != nil {
		return m, refine(err)
	}
	if err := json.Unmarshal(definition, &m); err != nil {
		return m, fmt.Errorf("decode VM: %w", err)
	}
	return m, nil
}

// newKeys returns the keys of a changed VM that it did not have before.
func newKeys(before, after gateway.VM) []string {
	had := keysOf(before)
	return slices.DeleteFunc(keysOf(after), func(key string) bool { return slices.Contains(had, key) })
}

// Delete implements gateway.Records. The VM's logins and forwarded ports are removed
// with it.
func (s *Store) Delete(ctx context.Context, id gateway.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.logins.RemoveSecrets(ctx, gateway.SecretsOf{VM: id}); err != nil {
		return err
	}
	if err := s.Forwards().ReleaseVM(ctx, id); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, `DELETE FROM machines WHERE id = ?`, id[:]); err != nil {
		return refine(err)
	}
	_ = s.releaseStrays(ctx) // the VM is deleted; what is left is released before the next claim
	return nil
}
