package store

import (
	"context"
	"database/sql"
	"time"
)

// KV is a small ordered map from names to bytes: certificates, their locks, the host's secrets.
type KV struct {
	db  *sql.DB
	now func() time.Time
}

// KV returns the key-value part of the store.
func (s *Store) KV() *KV { return &KV{db: s.db, now: s.now} }

// Get reads a value and when it was written. A missing key is a KindNotFound error that is also
// fs.ErrNotExist.
func (kv *KV) Get(ctx context.Context, key string) ([]byte, time.Time, error) {
	var value []byte
	var modified int64
	err := kv.db.QueryRowContext(ctx, `SELECT value, modified FROM kv WHERE key = ?`, key).Scan(&value, &modified)
	return value, time.Unix(0, modified), refine(err)
}

// Put writes a value.
func (kv *KV) Put(ctx context.Context, key string, value []byte) error {
	if value == nil {
		value = []byte{} // a nil slice would be NULL
	}
	_, err := kv.db.ExecContext(ctx, `INSERT OR REPLACE INTO kv (key, value, modified) VALUES (?, ?, ?)`,
		key, value, kv.now().UnixNano())
	return refine(err)
}

// Delete forgets a key. A missing one is no error.
func (kv *KV) Delete(ctx context.Context, key string) error {
	_, err := kv.db.ExecContext(ctx, `DELETE FROM kv WHERE key = ?`, key)
	return refine(err)
}

// List returns the keys that start with prefix, in order.
func (kv *KV) List(ctx context.Context, prefix string) ([]string, error) {
	rows, err := kv.db.QueryContext(ctx, `SELECT key FROM kv WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key`, prefix)
	if err != nil {
		return nil, refine(err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err says all there is
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, rows.Err()
}

// Secret returns the host's secret of that name: 32 random bytes, made and synced at the first
// call.
func (kv *KV) Secret(ctx context.Context, name string) ([32]byte, error) {
	fresh := newSecret()
	key := "secret/" + name
	if _, err := kv.db.ExecContext(ctx, `INSERT OR IGNORE INTO kv (key, value, modified) VALUES (?, ?, ?)`,
		key, fresh[:], kv.now().UnixNano()); err != nil {
		return [32]byte{}, refine(err)
	}
	value, _, err := kv.Get(ctx, key)
	if err != nil {
		return [32]byte{}, err
	}
	if len(value) != len(fresh) {
		return [32]byte{}, errCorrupt
	}
	return [32]byte(value), nil
}
