package store

import (
	"strings"
	"testing"
)

// TestDeletionOfAnOlderVersion lets a version become the latest between its choice and its deletion: it stays.
func TestDeletionOfAnOlderVersion(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := s.CreateBucket(blog, "box", true)
	must(t, err)
	key := Key{blog, "box", "x"}
	one, two, three := put(t, s, key, []byte("1")), put(t, s, key, []byte("2")), put(t, s, key, []byte("3"))
	_, err = s.Delete(t.Context(), key, three.Version, Condition{}, false)
	must(t, err)
	older := func(version string, want error) {
		t.Helper()
		done, err := s.DeleteAll(t.Context(), blog, "box", []Deletion{{Name: "x", Version: version, Older: true}})
		must(t, err)
		wantErr(t, done[0].Err, want)
	}
	older(two.Version, ErrPrecondition)
	older(one.Version, nil)
	older(three.Version, nil) // it is gone
	wantBody(t, s, key, "", []byte("2"))
	marker, err := s.Delete(t.Context(), key, "", Condition{}, false)
	must(t, err)
	older(marker.Version, ErrPrecondition)
	older(two.Version, nil)
}

// TestPageOfVersionsIsOfOneMoment lists versions while others replace the object: none is in a page twice, and the
// first is the only latest one.
func TestPageOfVersionsIsOfOneMoment(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := s.CreateBucket(blog, "box", true)
	must(t, err)
	key := Key{blog, "box", "x"}
	put(t, s, key, []byte("0"))
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		for range 100 {
			if _, err := s.Put(t.Context(), key, Write{Body: strings.NewReader("x"), Size: 1}); err != nil {
				t.Error(err)
			}
		}
	}()
	for writing, lists := true, 0; writing; lists++ {
		select {
		case <-done:
			writing = false
		default:
		}
		p, err := s.List(t.Context(), Query{VM: blog, Bucket: "box", Versions: true})
		must(t, err)
		seen := map[string]bool{}
		for i, o := range p.Objects {
			if seen[o.Version] || o.Latest != (i == 0) {
				t.Fatalf("list %d: version %d of %d, %s, latest %v, seen %v", lists, i, len(p.Objects), o.Version, o.Latest, seen[o.Version])
			}
			seen[o.Version] = true
		}
	}
}
