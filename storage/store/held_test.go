package store

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"lodge/gateway"
)

// TestHeldBySnapshots counts what only snapshots hold: it is charged, shown apart, the same after the store was opened
// again, and given back by Drop.
func TestHeldBySnapshots(t *testing.T) {
	dir := t.TempDir()
	limit := func(c *Config) {
		c.Limits = func(gateway.ID, string) Limits { return Limits{VM: 500_000} }
	}
	s := open(t, dir, limit)
	write := func(name string, size int) error {
		_, err := s.Put(t.Context(), Key{blog, "box", name}, Write{Body: bytes.NewReader(random(uint64(size), size)), Size: -1})
		return err
	}
	want := func(bytes, values int64) {
		t.Helper()
		for range 2 {
			u, err := s.Usage(blog)
			if held := bytes + values*recordBytes; err != nil || u.Held != held {
				t.Errorf("held %d, want %d, %v", u.Held, held, err)
			}
			if found := checked(t, s); len(found) > 0 {
				t.Error(found)
			}
			must(t, s.Close())
			s = open(t, dir, limit)
		}
	}
	must(t, write("large", 200_000))
	must(t, write("small", 1000))
	want(0, 0)
	mark(t, s, blog, "at")
	want(0, 0)
	must(t, write("large", 200_001)) // the old body is held
	want(200_000, 1)
	wantErr(t, write("more", 100_000), ErrQuota)
	_, err := s.Delete(t.Context(), Key{blog, "box", "small"}, "", Condition{}, false)
	must(t, err)
	want(201_000, 2)
	_, err = s.Update(Key{blog, "box", "large"}, "", func(m *Meta) error { m.Tags = map[string]string{"a": "b"}; return nil })
	must(t, err)
	want(201_000, 2)
	must(t, s.Drop(blog, "at"))
	want(0, 0)
	must(t, write("more", 100_000))
}

// TestFootprintIsCountedOnce opens a store of a version that had no record of the footprint.
func TestFootprintIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	put(t, s, Key{blog, "box", "large"}, random(1, maxSmall+1))
	put(t, s, Key{blog, "box", "small"}, random(1, 10))
	mark(t, s, blog, "at")
	put(t, s, Key{blog, "box", "large"}, nil)
	must(t, s.index.Delete(footprintKey(blog), pebble.Sync))
	must(t, s.Close())
	s = open(t, dir)
	u, err := s.Usage(blog)
	if want := int64(maxSmall + 1 + recordBytes); err != nil || u.Held != want {
		t.Errorf("held %d, want %d, %v", u.Held, want, err)
	}
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
}

// TestEmptyObjectsAreNotFree stores empty objects, and then delete markers, until the quota is reached.
func TestEmptyObjectsAreNotFree(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) {
		c.Limits = func(gateway.ID, string) Limits { return Limits{VM: 20 * recordBytes} }
	})
	stored := 0
	for ; stored < 30; stored++ {
		_, err := s.Put(t.Context(), Key{blog, "box", fmt.Sprint(stored)}, Write{Body: bytes.NewReader(nil), Size: 0})
		if errors.Is(err, ErrQuota) {
			break
		}
		must(t, err)
	}
	if stored != 20 {
		t.Errorf("%d empty objects in the room of 20", stored)
	}
	must(t, s.ConfigureBucket(blog, "box", func(b *Bucket) error { b.Versioning = Enabled; return nil }))
	_, err := s.Delete(t.Context(), Key{blog, "box", "nothing"}, "", Condition{}, false)
	wantErr(t, err, ErrQuota) // it would hide nothing
	_, err = s.Delete(t.Context(), Key{blog, "box", "1"}, "", Condition{}, false)
	must(t, err)
}
