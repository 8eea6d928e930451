package acme

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"lodge/gateway"
)

// KV is a small persistent map from names to bytes, ordered by name. store.KV is one.
type KV interface {
	// Get returns a value and the time it was written. A missing key is a KindNotFound error.
	Get(ctx context.Context, key string) (value []byte, modified time.Time, err error)
	// PutAll writes and syncs all of the values, or none.
	PutAll(ctx context.Context, values map[string][]byte) error
	// Delete removes a key. A missing key is no error.
	Delete(ctx context.Context, key string) error
	// List returns the keys that start with prefix.
	List(ctx context.Context, prefix string) ([]string, error)
}

// keyPrefix separates these keys from others in the same KV.
const keyPrefix = "acme/"

// storage implements certmagic.Storage over a KV. Locks are in memory, since one process owns the
// state directory.
//
// certmagic stores a certificate's key, then the certificate, then its metadata, and deletes the
// parts before the one that fails, though they may be those of a valid certificate that it renews.
// So the first two are held back until the metadata is stored, which stores all three at once.
type storage struct {
	kv     KV
	mu     sync.Mutex
	locks  map[string]chan struct{} // closed when the lock is released
	held   map[string][]byte        // the values that are held back
	broken error                    // of the last write
}

func newStorage(kv KV) *storage {
	return &storage{kv: kv, locks: map[string]chan struct{}{}, held: map[string][]byte{}}
}

// Lock implements certmagic.Locker.
func (s *storage) Lock(ctx context.Context, name string) error {
	for {
		s.mu.Lock()
		held, taken := s.locks[name]
		if !taken {
			s.locks[name] = make(chan struct{})
		}
		s.mu.Unlock()
		if !taken {
			return nil
		}
		select {
		case <-held:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unlock implements certmagic.Locker.
func (s *storage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	held, taken := s.locks[name]
	if !taken {
		return fmt.Errorf("unlock %s: not locked", name)
	}
	delete(s.locks, name)
	close(held)
	return nil
}

// Store implements certmagic.Storage.
func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	kind := path.Ext(key)
	if !strings.HasPrefix(key, "certificates/") {
		kind = ""
	}
	if kind == ".key" || kind == ".crt" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held[key] = value
		return nil
	}
	values := map[string][]byte{keyPrefix + key: value}
	parts := s.partsOf(key, kind)
	for part, value := range parts {
		values[keyPrefix+part] = value
	}
	err := s.kv.PutAll(ctx, values)
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		s.broken = err
	}
	for part := range parts {
		if err == nil { // else certmagic deletes them, and that must not delete what was stored before
			delete(s.held, part)
		}
	}
	return err
}

// partsOf returns what is held back for the metadata at key; nothing for other keys.
func (s *storage) partsOf(key, kind string) map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := map[string][]byte{}
	if kind != ".json" {
		return parts
	}
	for _, ext := range [2]string{".key", ".crt"} {
		part := strings.TrimSuffix(key, kind) + ext
		if value, ok := s.held[part]; ok {
			parts[part] = value
		}
	}
	return parts
}

// failure is the error of the last write; nil when it succeeded.
func (s *storage) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// dropHeld drops a value that is held back. It is false if there is none.
func (s *storage) dropHeld(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.held[key]
	delete(s.held, key)
	return ok
}

// Load implements certmagic.Storage.
func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	value, _, err := s.get(ctx, key)
	return value, err
}

// Delete implements certmagic.Storage. It removes the key and, if it is a directory, all keys below
// it.
func (s *storage) Delete(ctx context.Context, key string) error {
	if s.dropHeld(key) {
		return nil
	}
	below, err := s.kv.List(ctx, keyPrefix+key+"/")
	if err != nil {
		return err
	}
	for _, full := range append(below, keyPrefix+key) {
		if err := s.kv.Delete(ctx, full); err != nil {
			return err
		}
	}
	return nil
}

// Exists implements certmagic.Storage.
func (s *storage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage.
func (s *storage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	prefix := keyPrefix
	if dir = strings.Trim(dir, "/"); dir != "" {
		prefix += dir + "/"
	}
	below, err := s.kv.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	if len(below) == 0 {
		return nil, fs.ErrNotExist
	}
	var keys []string
	seen := map[string]bool{}
	for _, full := range below {
		rest := strings.TrimPrefix(full, prefix)
		if first, _, deeper := strings.Cut(rest, "/"); deeper && !recursive {
			rest = first
		}
		if key := strings.TrimPrefix(prefix, keyPrefix) + rest; !seen[key] {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// Stat implements certmagic.Storage.
func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	value, modified, err := s.get(ctx, key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: modified, Size: int64(len(value)), IsTerminal: true}, nil
	}
	below, listErr := s.kv.List(ctx, keyPrefix+key+"/")
	if listErr != nil || len(below) == 0 {
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key}, nil
}

func (s *storage) get(ctx context.Context, key string) ([]byte, time.Time, error) {
	value, modified, err := s.kv.Get(ctx, keyPrefix+key)
	if err != nil && gateway.KindOf(err) == gateway.KindNotFound {
		err = fs.ErrNotExist
	}
	return value, modified, err
}
