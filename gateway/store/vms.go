package store

import (
	"context"
	"encoding/json"
	"fmt"

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
	if s.strays {
		if err := s.releaseStrays(ctx); err != nil {
			return m, err
		}
	}
	s.strays = true // from the claim to the row
	var err error
	if m.Identity, err = s.claim(ctx, m.ID, m.Name); err != nil {
		return m, err
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
	var name string
	var removed bool
	if err := s.db.QueryRowContext(ctx, `SELECT name, removed FROM machines WHERE id = ?`, m.ID[:]).Scan(&name, &removed); err != nil {
		return refine(err)
	}
	remove := m.Desired == gateway.Removed
	if !remove && (removed || name != m.Name) {
		s.strays = true // from the claim to the row
		if err := s.claimName(ctx, m.ID, m.Name); err != nil {
			return err
		}
	}
	definition, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode VM: %w", err)
	}
	if _, err = s.db.ExecContext(ctx, `UPDATE machines SET name = ?, removed = ?, definition = ? WHERE id = ?`,
		m.Name, remove, string(definition), m.ID[:]); err != nil {
		return refine(err)
	}
	if remove != removed || name != m.Name {
		_ = s.releaseStrays(ctx) // the VM is saved; what is left is released before the next claim
	}
	return nil
}

// Delete implements gateway.Records. The VM's logins are removed with it.
func (s *Store) Delete(ctx context.Context, id gateway.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.Logins().RemoveTokens(ctx, id); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, `DELETE FROM machines WHERE id = ?`, id[:]); err != nil {
		return refine(err)
	}
	_ = s.releaseStrays(ctx) // the VM is deleted; what is left is released before the next claim
	return nil
}
