package store

import (
	"context"
	"encoding/binary"
	"strings"
	"time"

	"lodge/gateway"
)

// kvPrefix is that of a KV's keys in gateway.Shared.
const kvPrefix = "kv/"

// stampBytes is the length of the time in front of each value: Unix nanoseconds, big endian.
const stampBytes = 8

// KV is a small ordered map from names to bytes: certificates, the secrets of the hosts.
type KV struct {
	shared gateway.Shared
	now    func() time.Time
}

// KV returns the key-value part of the store.
func (s *Store) KV() *KV { return &KV{shared: s.shared, now: s.now} }

// Get reads a value and when it was written. A missing key is a KindNotFound error.
func (kv *KV) Get(ctx context.Context, key string) ([]byte, time.Time, error) {
	entry, err := kv.shared.Get(ctx, kvPrefix+key)
	if err != nil {
		return nil, time.Time{}, err
	}
	if len(entry.Value) < stampBytes {
		return nil, time.Time{}, errCorrupt
	}
	nanoseconds := binary.BigEndian.Uint64(entry.Value)
	return entry.Value[stampBytes:], time.Unix(0, int64(nanoseconds)), nil
}

// PutAll writes all of the values, or none.
func (kv *KV) PutAll(ctx context.Context, values map[string][]byte) error {
	return kv.put(ctx, values, nil)
}

func (kv *KV) put(ctx context.Context, values map[string][]byte, still []gateway.Cond) error {
	var ops []gateway.Op
	for key, value := range values {
		stamped := binary.BigEndian.AppendUint64(nil, uint64(kv.now().UnixNano()))
		ops = append(ops, gateway.Op{Key: kvPrefix + key, Value: append(stamped, value...)})
	}
	_, err := kv.shared.Commit(ctx, still, ops)
	return err
}

// Delete removes a key. A missing one is no error.
func (kv *KV) Delete(ctx context.Context, key string) error {
	_, err := kv.shared.Commit(ctx, nil, []gateway.Op{{Key: kvPrefix + key, Delete: true}})
	return err
}

// List returns the keys that start with prefix, in order.
func (kv *KV) List(ctx context.Context, prefix string) ([]string, error) {
	entries, _, err := kv.shared.List(ctx, kvPrefix+prefix)
	var keys []string
	for _, entry := range entries {
		keys = append(keys, strings.TrimPrefix(entry.Key, kvPrefix))
	}
	return keys, err
}

// Secret returns the secret of that name, which all hosts have in common: 32 random bytes, made and
// synced at the first call.
func (kv *KV) Secret(ctx context.Context, name string) ([32]byte, error) {
	key := "secret/" + name
	value, _, err := kv.Get(ctx, key)
	if gateway.KindOf(err) == gateway.KindNotFound {
		fresh := newSecret()
		err = kv.put(ctx, map[string][]byte{key: fresh[:]}, []gateway.Cond{{Key: kvPrefix + key}})
		value = fresh[:]
	}
	if gateway.KindOf(err) == gateway.KindConflict { // another caller made it first
		value, _, err = kv.Get(ctx, key)
	}
	if err != nil {
		return [32]byte{}, err
	}
	if len(value) != 32 {
		return [32]byte{}, errCorrupt
	}
	return [32]byte(value), nil
}
