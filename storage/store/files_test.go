package store

import (
	"encoding/hex"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// files returns the blobs on disk, without the empty spare ones.
func files(t testing.TB, s *Store) (found []string) {
	t.Helper()
	spare := map[string]bool{}
	s.blobs.mu.Lock()
	for _, id := range s.blobs.free {
		spare[s.blobs.newPath(id)] = true
	}
	s.blobs.mu.Unlock()
	err := filepath.WalkDir(s.path("blobs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && !spare[path] {
			found = append(found, strings.TrimPrefix(path, s.dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }
