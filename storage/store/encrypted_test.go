package store

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"lodge/gateway"
)

// padded is a write of a body that encryption has made longer.
func padded(plain, stored int) Write {
	return Write{
		Body: strings.NewReader(strings.Repeat("x", stored)), Size: int64(stored), Plain: func() int64 { return int64(plain) },
		Meta: Meta{Sealed: []byte("s")},
	}
}

// An encrypted body counts with the size that clients see, in copies, versions, snapshots and forks, and is
// checked and read with its own.
func TestEncryptedBodies(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) { c.MinPart = 1 })
	key, large := Key{blog, "box", "k"}, Key{blog, "box", "large"}
	for k, size := range map[Key]int{key: 100, large: 100_000} {
		if o, err := s.Put(t.Context(), k, padded(size-10, size)); err != nil || o.Size != int64(size-10) {
			t.Fatalf("put: %d bytes, %v", o.Size, err)
		}
		if _, err := s.Copy(t.Context(), k, "", Key{blog, "box", k.Name + "-copy"}, CopyOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	multi := Key{blog, "box", "multi"}
	up, err := s.NewUpload(multi, UploadOptions{Meta: Meta{Sealed: []byte("s")}})
	if err != nil {
		t.Fatal(err)
	}
	var listed []CompletedPart
	for number, size := range map[int]int{1: 50, 2: 70_000} {
		part, err := s.PutPart(t.Context(), multi, up.ID, number, padded(size-10, size))
		if err != nil || part.Size != int64(size-10) {
			t.Fatalf("part: %d bytes, %v", part.Size, err)
		}
		listed = append(listed, CompletedPart{Number: number, ETag: part.ETag})
	}
	if listed[0].Number == 2 {
		listed[0], listed[1] = listed[1], listed[0]
	}
	size := int64(40 + 69_990)
	if o, err := s.Complete(t.Context(), multi, up.ID, listed, Completion{Size: &size}); err != nil || o.Size != size {
		t.Fatalf("complete: %d bytes, %v", o.Size, err)
	}
	release, err := s.Snapshot(blog, "at")
	if err != nil {
		t.Fatal(err)
	}
	release()
	want := size + 2*(90+99_990)
	for _, k := range []Key{key, large} { // they are held by the snapshot
		put(t, s, k, []byte("new"))
	}
	if err := s.Restore(blog, "at"); err != nil {
		t.Fatal(err)
	}
	fork := gateway.NewID()
	if err := s.Fork(blog, "at", fork); err != nil {
		t.Fatal(err)
	}
	for _, vm := range []gateway.ID{blog, fork} {
		if u, err := s.Usage(vm); err != nil || u.Bytes != want {
			t.Errorf("usage: %d bytes instead of %d, %v", u.Bytes, want, err)
		}
		for name, stored := range map[string]int{"k": 100, "k-copy": 100, "large": 100_000, "large-copy": 100_000, "multi": 70_050} {
			wantBody(t, s, Key{vm, "box", name}, "", bytes.Repeat([]byte("x"), stored))
		}
	}
	if _, err := s.Copy(t.Context(), multi, "", Key{fork, "box", "foreign"}, CopyOptions{}); !errors.Is(err, ErrSealedParts) {
		t.Errorf("copy to another VM: %v", err)
	}
	body, err := s.Get(multi, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = body.Close() }() // read only
	if parts := body.PartList(); len(parts) != 2 || parts[1].Offset != 40 || parts[1].Size != 69_990 {
		t.Errorf("parts: %+v", parts)
	}
	if err := s.Check(t.Context(), func(d Damage) { t.Errorf("damage: %+v", d) }); err != nil {
		t.Error(err)
	}
}
