package acme

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
)

func TestStorage(t *testing.T) {
	s := newStorage(&mapKV{})
	ctx := t.Context()
	for _, key := range []string{"a/b/one", "a/b/two", "a/three", "ab/four"} {
		if err := s.Store(ctx, key, []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Load(ctx, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory was loaded: %v", err)
	}
	for dir, want := range map[string][]string{"a": {"a/b", "a/three"}, "a/b": {"a/b/one", "a/b/two"}, "": {"a", "ab"}} {
		if got, err := s.List(ctx, dir, false); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("List %q: %v %v", dir, got, err)
		}
	}
	if got, err := s.List(ctx, "a", true); err != nil || cmp.Diff([]string{"a/b/one", "a/b/two", "a/three"}, got) != "" {
		t.Errorf("List of all below a: %v %v", got, err)
	}
	if _, err := s.List(ctx, "none", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List of nothing: %v", err)
	}
	if info, err := s.Stat(ctx, "a/b"); err != nil || info.IsTerminal {
		t.Errorf("Stat of a directory: %+v %v", info, err)
	}
	if info, err := s.Stat(ctx, "a/three"); err != nil || !info.IsTerminal || info.Size != 7 || info.Modified.IsZero() {
		t.Errorf("Stat of a file: %+v %v", info, err)
	}
	if err := s.Delete(ctx, "a"); err != nil || s.Exists(ctx, "a/b/one") || s.Exists(ctx, "a") || !s.Exists(ctx, "ab/four") {
		t.Errorf("Delete of a directory: %v", err)
	}
	if err := s.Delete(ctx, "a"); err != nil {
		t.Errorf("Delete of nothing: %v", err)
	}
}

func TestLocksExcludeAndHonourContexts(t *testing.T) {
	s := newStorage(&mapKV{})
	var held, count int
	var working sync.WaitGroup
	for range 8 {
		working.Go(func() {
			for range 100 {
				if err := s.Lock(t.Context(), "x"); err != nil {
					t.Error(err)
				}
				if held++; held != 1 {
					t.Error("two hold the lock")
				}
				count++
				held--
				if err := s.Unlock(t.Context(), "x"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	if count != 800 {
		t.Errorf("%d of 800", count)
	}
	if err := s.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Lock(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("a second lock: %v", err)
	}
}

// mapKV is a KV that can stop writing.
type mapKV struct {
	mu     sync.Mutex
	all    map[string][]byte
	crash  bool // after writes
	writes int
}

func (kv *mapKV) Get(_ context.Context, key string) ([]byte, time.Time, error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	value, ok := kv.all[key]
	if !ok {
		return nil, time.Time{}, gateway.Errorf(gateway.KindNotFound, "no key %q", key)
	}
	return value, time.Now(), nil
}

func (kv *mapKV) PutAll(_ context.Context, values map[string][]byte) error {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if kv.crash && kv.writes == 0 {
		return errors.New("killed")
	}
	kv.writes--
	if kv.all == nil {
		kv.all = map[string][]byte{}
	}
	for key, value := range values {
		kv.all[key] = slices.Clone(value)
	}
	return nil
}

func (kv *mapKV) Delete(_ context.Context, key string) error {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	delete(kv.all, key)
	return nil
}

func (kv *mapKV) List(_ context.Context, prefix string) ([]string, error) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	var keys []string
	for key := range kv.all {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// stopAfter makes writes fail after the next n.
func (kv *mapKV) stopAfter(n int) {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	kv.crash, kv.writes = true, n
}

func (kv *mapKV) recover() {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	kv.crash = false
}
