package store

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// TestRecentlyCompared reads a body again: within a minute its chunks are not compared, later they are, and at once if
// its file was written to.
func TestRecentlyCompared(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	s := open(t, t.TempDir(), func(c *Config) { c.Now = func() time.Time { return now } })
	key := Key{blog, "box", "x"}
	put(t, s, key, random(1, chunkBytes+9))
	v, err := s.find(key, "")
	must(t, err)
	file := s.blobs.finalPath(blog, v.content.id)
	info, err := os.Stat(file)
	must(t, err)
	get := func() error {
		body, err := s.Get(key, "")
		must(t, err)
		defer func() { must(t, body.Close()) }()
		_, err = body.WriteTo(io.Discard)
		return err
	}
	must(t, get())
	must(t, flip(file, chunkBytes+1))
	later := info.ModTime().Add(time.Second) // the clock of a file system may stand still in between
	must(t, os.Chtimes(file, later, later))
	if err := get(); !errors.Is(err, ErrDamaged) {
		t.Errorf("after a write: %v", err)
	}
	must(t, os.Chtimes(file, info.ModTime(), info.ModTime())) // as when the disk loses a bit
	if err := get(); err != nil {
		t.Errorf("within a minute: %v", err)
	}
	if found := checked(t, s); len(found) != 1 {
		t.Errorf("Check found %v", found)
	}
	now = now.Add(recentFor)
	if err := get(); !errors.Is(err, ErrDamaged) {
		t.Errorf("a minute later: %v", err)
	}
}
