package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lodge/gateway"
)

// Checkpoints keeps the checkpoints of this host's VMs. While a layer has one, it cannot be deleted.
type Checkpoints struct{ db *sql.DB }

// Checkpoints returns the part of the store that keeps checkpoints.
func (s *Store) Checkpoints() *Checkpoints { return &Checkpoints{s.db} }

// checkpointRow is a row of the table as SQLite returns it.
type checkpointRow struct {
	gateway.Checkpoint
	vm      []byte
	shares  string
	buckets string // their shares
	created int64
}

// All returns every checkpoint, in the order of their making.
func (c *Checkpoints) All(ctx context.Context) ([]gateway.Checkpoint, error) {
	rows, err := query(ctx, c.db, func(r *checkpointRow) []any {
		return []any{&r.ID, &r.vm, &r.Name, &r.Kind, &r.Layer, &r.Quiesced, &r.Memory, &r.shares, &r.created, &r.buckets}
	}, `SELECT id, vm, name, kind, layer, quiesced, memory, shares, created, bucket_shares FROM checkpoints ORDER BY number`)
	if err != nil {
		return nil, refine(err)
	}
	all := make([]gateway.Checkpoint, len(rows))
	for i, r := range rows {
		all[i] = r.Checkpoint
		all[i].Created = time.Unix(r.created, 0).UTC()
		broken := errors.Join(json.Unmarshal([]byte(r.shares), &all[i].Shares), json.Unmarshal([]byte(r.buckets), &all[i].BucketShares))
		if copy(all[i].VM[:], r.vm) != len(all[i].VM) || broken != nil {
			return nil, fmt.Errorf("decode checkpoint %s: %w", r.ID, errCorrupt)
		}
	}
	return all, nil
}

// Create records a checkpoint. It fails when its VM has one of the same name, or its layer does not
// exist.
func (c *Checkpoints) Create(ctx context.Context, p gateway.Checkpoint) error {
	shares, err := json.Marshal(p.Shares)
	buckets, badBuckets := json.Marshal(p.BucketShares)
	if err := errors.Join(err, badBuckets); err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	_, err = c.db.ExecContext(ctx, `INSERT INTO checkpoints (id, vm, name, kind, layer, quiesced, memory, shares, created, bucket_shares)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, p.ID, p.VM[:], p.Name, p.Kind, p.Layer, p.Quiesced, p.Memory, shares, p.Created.Unix(), buckets)
	return refine(err)
}

// Delete deletes a checkpoint. A missing one is no error.
func (c *Checkpoints) Delete(ctx context.Context, id gateway.CheckpointID) error {
	_, err := c.db.ExecContext(ctx, `DELETE FROM checkpoints WHERE id = ?`, id)
	return refine(err)
}
