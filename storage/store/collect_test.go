package store

import (
	"bytes"
	"errors"
	"testing"
)

// TestCollectorSeesAPinOfACopy deletes both holders of a file while a copy of it is in progress, and lets the
// collection for the first of them come last: it leaves the file for the copy.
func TestCollectorSeesAPinOfACopy(t *testing.T) {
	whole := func(s *Store, key Key, body []byte) { put(t, s, key, body) }
	parts := func(s *Store, key Key, body []byte) { putParts(t, s, key, body) }
	for name, write := range map[string]func(*Store, Key, []byte){"file": whole, "list": parts} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), func(c *Config) { c.MinPart = 1 })
			one, two, three := Key{blog, "box", "1"}, Key{blog, "box", "2"}, Key{blog, "box", "3"}
			body := random(1, maxSmall+1)
			write(s, one, body)
			_, err := s.Copy(t.Context(), one, "", two, CopyOptions{})
			must(t, err)
			source, err := s.Get(two, "")
			must(t, err)
			for _, key := range []Key{one, two} {
				_, err := s.Delete(t.Context(), key, "", Condition{}, false)
				must(t, err)
			}
			must(t, s.tryCollect(blog, source.content, 0))
			_, err = s.copyBody(t.Context(), source, &version{Object: Object{Key: three, Size: source.Size, Parts: source.Parts}}, Condition{})
			must(t, errors.Join(err, source.Close()))
			wantBody(t, s, three, "", body)
			if found := checked(t, s); len(found) > 0 {
				t.Error(found)
			}
			_, err = s.Delete(t.Context(), three, "", Condition{}, false)
			must(t, err)
			must(t, s.DeleteBucket(blog, "box"))
			wantNothing(t, s)
		})
	}
}

// putParts stores an object of one part.
func putParts(t *testing.T, s *Store, key Key, body []byte) {
	t.Helper()
	u, err := s.NewUpload(key, UploadOptions{})
	must(t, err)
	p, err := s.PutPart(t.Context(), key, u.ID, 1, Write{Body: bytes.NewReader(body), Size: -1})
	must(t, err)
	_, err = s.Complete(t.Context(), key, u.ID, []CompletedPart{{Number: 1, ETag: p.ETag}}, Completion{})
	must(t, err)
}
