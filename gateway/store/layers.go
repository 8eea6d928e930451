package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"lodge/gateway"
)

// Layers keeps the layers of this host's disks. The table cannot have a layer whose parent is
// missing.
type Layers struct{ db *sql.DB }

// Layers returns the part of the store that keeps layers.
func (s *Store) Layers() *Layers { return &Layers{s.db} }

// layerRow is a row of the table as SQLite returns it.
type layerRow struct {
	gateway.Layer
	parent  sql.NullString
	vm      []byte
	created int64
}

// All returns every layer, each after its parent.
func (l *Layers) All(ctx context.Context) ([]gateway.Layer, error) {
	rows, err := query(ctx, l.db, func(r *layerRow) []any {
		return []any{&r.ID, &r.parent, &r.vm, &r.File, &r.Format, &r.Bytes, &r.State, &r.created}
	}, `SELECT id, parent, vm, file, format, bytes, state, created FROM layers ORDER BY number`)
	if err != nil {
		return nil, refine(err)
	}
	all := make([]gateway.Layer, len(rows))
	for i, r := range rows {
		all[i] = r.Layer
		all[i].Parent, all[i].Created = gateway.LayerID(r.parent.String), time.Unix(r.created, 0).UTC()
		if copy(all[i].VM[:], r.vm) != len(r.vm) {
			return nil, fmt.Errorf("decode layer %s: %w", r.ID, errCorrupt)
		}
	}
	return all, nil
}

// Put writes all of the layers, or none: new ones, and the states and parents of those that exist.
func (l *Layers) Put(ctx context.Context, layers ...gateway.Layer) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return refine(err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	for _, layer := range layers {
		parent := sql.NullString{String: string(layer.Parent), Valid: layer.Parent != ""}
		var vm []byte // NULL for none
		if layer.VM != (gateway.ID{}) {
			vm = layer.VM[:]
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO layers (id, parent, vm, file, format, bytes, state, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET state = excluded.state, parent = excluded.parent`,
			layer.ID, parent, vm, layer.File, layer.Format, layer.Bytes, layer.State, layer.Created.Unix()); err != nil {
			return refine(err)
		}
	}
	return refine(tx.Commit())
}

// Delete deletes a layer. It fails for one that has children. A missing one is no error.
func (l *Layers) Delete(ctx context.Context, id gateway.LayerID) error {
	_, err := l.db.ExecContext(ctx, `DELETE FROM layers WHERE id = ?`, id)
	return refine(err)
}
