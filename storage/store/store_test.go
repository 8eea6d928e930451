package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
)

var blog, shop = gateway.ID{1}, gateway.ID{2}

func open(t testing.TB, dir string, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	for _, f := range change {
		f(&cfg)
	}
	s, err := Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a test that closes it itself looks at the error
	return s
}

// random returns the same bytes for the same seed and size.
func random(seed uint64, size int) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, uint64(size)))
	for i := 0; i < size; i += 8 {
		n := r.Uint64()
		for j := i; j < min(i+8, size); j++ {
			b[j] = byte(n)
			n >>= 8
		}
	}
	return b
}

func put(t testing.TB, s *Store, key Key, body []byte) Object {
	t.Helper()
	o, err := s.Put(t.Context(), key, Write{Body: bytes.NewReader(body), Size: int64(len(body))})
	if err != nil {
		t.Fatalf("put %q: %v", key.Name, err)
	}
	return o
}

func read(s *Store, key Key, version string) ([]byte, error) {
	b, err := s.Get(key, version)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(b)
	return got, errors.Join(err, b.Close())
}

func wantBody(t testing.TB, s *Store, key Key, version string, want []byte) {
	t.Helper()
	if got, err := read(s, key, version); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q %s: %d bytes, %v; want %d bytes", key.Name, version, len(got), err, len(want))
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error is %v, want %v", err, want)
	}
}

var sizes = []int{0, 1, maxSmall, maxSmall + 1, copyBuffer, chunkBytes, chunkBytes + 1, 3*chunkBytes + 7}

func TestPutGetDelete(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, size := range sizes {
		key := Key{blog, "box", fmt.Sprint(size)}
		body := random(1, size)
		put(t, s, key, random(2, size/2+5))
		o := put(t, s, key, body)
		if o.Version != NullVersion || o.Size != int64(size) || !o.Latest {
			t.Errorf("object %+v", o)
		}
		wantBody(t, s, key, "", body)
		_, err := s.Head(Key{shop, "box", key.Name}, "")
		wantErr(t, err, ErrNoBucket)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	for _, size := range sizes {
		key := Key{blog, "box", fmt.Sprint(size)}
		wantBody(t, s, key, "", random(1, size))
		if _, err := s.Delete(t.Context(), key, "", Condition{}, false); err != nil {
			t.Error(err)
		}
		_, err := s.Get(key, "")
		wantErr(t, err, ErrNoKey)
	}
	if err := s.DeleteBucket(blog, "box"); err != nil {
		t.Error(err)
	}
	wantNothing(t, s)
}

// wantNothing fails if any record of a VM or any blob is left.
func wantNothing(t testing.TB, s *Store) {
	t.Helper()
	err := each(s.index, []byte{ofVM}, func(key, v []byte) error {
		var m sum
		if err := m.MergeNewer(v); key[vmKeyLen] == kindFootprint && err == nil && slices.Equal(m, sum{0, 0, 0}) {
			return nil
		}
		t.Errorf("left in the index: %q", key)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if files := files(t, s); len(files) > 0 {
		t.Errorf("left on disk: %v", files)
	}
}

func TestBuckets(t *testing.T) {
	s := open(t, t.TempDir())
	for _, name := range []string{"b", "a", "c"} {
		if _, err := s.CreateBucket(blog, name, false); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.CreateBucket(blog, "a", false)
	wantErr(t, err, ErrBucketExists)
	page, more, err := s.Buckets(blog, "", "a", 1)
	if err != nil || !more || len(page) != 1 || page[0].Name != "b" {
		t.Errorf("page %v, %v, %v", page, more, err)
	}
	put(t, s, Key{blog, "a", "x"}, nil)
	wantErr(t, s.DeleteBucket(blog, "a"), ErrBucketNotEmpty)
	wantErr(t, s.DeleteBucket(shop, "b"), ErrNoBucket)
	_, err = s.Bucket(shop, "a")
	wantErr(t, err, ErrNoBucket)
}

// TestKeysAreOpaque stores names that file systems and URLs would change, in two VMs and two buckets, and
// lists each in the order of bytes.
func TestKeysAreOpaque(t *testing.T) {
	s := open(t, t.TempDir())
	names := []string{
		"x", "x/", "x/y", "//", "/", "..", "../../etc", ".", "\xff", "\xff\xff", "x\xff", "x\x01", "a\nb", "\x01", "é",
		strings.Repeat("k", 1024), strings.Repeat("\xff", 1024),
	}
	for _, vm := range []gateway.ID{blog, shop} {
		for _, bucket := range []string{"one", "two"} {
			for i, name := range names {
				put(t, s, Key{vm, bucket, name}, []byte{vm[0], bucket[0], byte(i)})
			}
		}
	}
	for i, name := range names {
		wantBody(t, s, Key{shop, "two", name}, "", []byte{shop[0], 't', byte(i)})
	}
	page, err := s.List(t.Context(), Query{VM: blog, Bucket: "one"})
	slices.Sort(names)
	if got := listed(page); err != nil || !slices.Equal(got, names) {
		t.Errorf("listed %q, %v", got, err)
	}
	for _, bad := range []string{"", "a\x00b", strings.Repeat("k", 1025)} {
		_, err := s.Put(t.Context(), Key{blog, "one", bad}, Write{})
		wantErr(t, err, ErrName)
	}
}

func listed(p Page) (names []string) {
	for _, o := range p.Objects {
		names = append(names, o.Key.Name)
	}
	return names
}
