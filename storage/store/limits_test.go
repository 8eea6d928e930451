package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/sandboxtest"
)

func TestQuota(t *testing.T) {
	dir := t.TempDir()
	limits := func(c *Config) {
		c.Limits = func(vm gateway.ID, _ string) Limits {
			if vm == blog {
				return Limits{VM: 300_000 + 5*recordBytes, Bucket: 200_000 + recordBytes}
			}
			return Limits{}
		}
	}
	s := open(t, dir, limits)
	put(t, s, Key{blog, "a", "x"}, random(1, 150_000))
	_, err := s.Put(t.Context(), Key{blog, "a", "y"}, Write{Body: bytes.NewReader(random(1, 60_000)), Size: -1})
	wantErr(t, err, ErrQuota)
	var figures *QuotaError
	if !errors.As(err, &figures) || figures.Bucket != "a" || figures.Limit != 200_000+recordBytes || figures.Used != 150_000+recordBytes {
		t.Errorf("figures %+v", figures)
	}
	put(t, s, Key{blog, "b", "x"}, random(1, 100_000))
	u, err := s.NewUpload(Key{blog, "b", "y"}, UploadOptions{})
	must(t, err)
	part := func(number, size int) error {
		_, err := s.PutPart(t.Context(), u.Key, u.ID, number, Write{Body: bytes.NewReader(random(1, size)), Size: int64(size)})
		return err
	}
	must(t, part(1, 40_000))
	wantErr(t, part(2, 20_000), ErrQuota)
	must(t, part(2, 10_000))
	_, err = s.Copy(t.Context(), Key{blog, "b", "x"}, "", Key{blog, "b", "z"}, CopyOptions{})
	wantErr(t, err, ErrQuota)
	put(t, s, Key{shop, "a", "x"}, random(1, 500_000))

	must(t, s.Close())
	s = open(t, dir, limits)
	usage, err := s.Usage(blog)
	must(t, err)
	if usage.Bytes != 250_000 || usage.Objects != 2 || usage.Pending != 50_000 || usage.Buckets["b"].Pending != 50_000 {
		t.Errorf("usage %+v", usage)
	}
	wantErr(t, part(3, 1), ErrQuota)
	must(t, s.Abort(u.Key, u.ID))
	put(t, s, Key{blog, "b", "y"}, random(1, 50_000))
	below, err := s.UsageOf(t.Context(), blog, "b", "y")
	if err != nil || below.Bytes != 50_000 || below.Objects != 1 {
		t.Errorf("usage below y: %+v, %v", below, err)
	}
}

// TestQuotaUnderLoad lets many writers race for the last bytes: together they never pass the limit.
func TestQuotaUnderLoad(t *testing.T) {
	s := open(t, t.TempDir(), func(c *Config) {
		c.Limits = func(gateway.ID, string) Limits { return Limits{VM: 1_000_000} }
	})
	var stored atomic.Int64
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			body := random(uint64(i), 50_000)
			_, err := s.Put(t.Context(), Key{blog, "box", string(rune('a' + i))}, Write{Body: bytes.NewReader(body), Size: -1})
			if err == nil {
				stored.Add(int64(len(body)))
			} else if !errors.Is(err, ErrQuota) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	u, err := s.Usage(blog)
	if err != nil || u.Bytes != stored.Load() || u.Bytes > 1_000_000 || u.Bytes < 900_000 {
		t.Errorf("usage %+v, %v; stored %d", u, err, stored.Load())
	}
}

// TestFullDisk fills a disk: what does not fit is refused and leaves nothing, what was there stays readable,
// and deletes make room again. The index survives a disk that others have filled to the last byte.
func TestFullDisk(t *testing.T) {
	dir := sandboxtest.SmallDisk(t, 128<<20)
	s := open(t, filepath.Join(dir, "objects"))
	_, err := s.CreateBucket(blog, "log", true)
	must(t, err)
	key := func(i int) Key { return Key{blog, "box", string(rune('a' + i))} }
	body := random(1, 10<<20)
	mark(t, s, blog, "at")
	stored := 0
	for ; stored < 20; stored++ {
		_, err := s.Put(t.Context(), key(stored), Write{Body: bytes.NewReader(body), Size: -1})
		if errors.Is(err, ErrFull) {
			break
		}
		must(t, err)
	}
	if stored == 0 || stored == 20 || len(files(t, s)) != stored {
		t.Fatalf("stored %d, files %v", stored, files(t, s))
	}
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	must(t, err)
	for err == nil { // a write that does not fit writes what does
		_, err = f.Write(body)
	}
	must(t, f.Close())
	_, err = s.Put(t.Context(), key(25), Write{Body: bytes.NewReader([]byte("x")), Size: 1})
	wantErr(t, err, ErrFull)
	_, err = s.NewUpload(key(25), UploadOptions{})
	wantErr(t, err, ErrFull)
	// Delete markers are small, but many of them need more than the log has on disk: the ballast goes, and in the
	// end they are refused as well, before the index is broken.
	for i := 0; err == nil || i == 0; i++ {
		var markers []Deletion
		for j := range 1000 {
			markers = append(markers, Deletion{Name: fmt.Sprintf("%x", random(uint64(i*1000+j), 450))})
		}
		_, err = s.DeleteAll(t.Context(), blog, "log", markers)
	}
	wantErr(t, err, ErrFull)
	if !s.disk.gone.Load() {
		t.Error("the disk was not as full as this test means it to be")
	}
	wantErr(t, s.Restore(blog, "at"), ErrFull) // nothing has begun that would have to be ended
	wantErr(t, s.Drop(blog, "at"), ErrFull)
	must(t, s.Readable(blog))
	wantBody(t, s, key(0), "", body)
	must(t, os.Remove(filler))
	for i := range stored {
		_, err := s.Delete(t.Context(), key(i), "", Condition{}, false)
		must(t, err)
	}
	must(t, s.Drop(blog, "at"))
	put(t, s, key(0), body)
	if found := checked(t, s); len(found) > 0 {
		t.Error(found)
	}
}

func TestAbandonedUploadsEnd(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := open(t, t.TempDir(), func(c *Config) { c.Now = func() time.Time { return now } })
	begin := func(name string) Upload {
		u, err := s.NewUpload(Key{blog, "box", name}, UploadOptions{})
		must(t, err)
		_, err = s.PutPart(t.Context(), u.Key, u.ID, 1, Write{Body: bytes.NewReader(random(1, maxSmall+1)), Size: -1})
		must(t, err)
		return u
	}
	old := begin("old")
	now = now.Add(uploadsLast)
	young := begin("young")
	must(t, s.EndUploads(t.Context()))
	if _, err := s.Upload(old.Key, old.ID); err != nil {
		t.Errorf("ended on its last day: %v", err)
	}
	now = now.Add(time.Second)
	must(t, s.EndUploads(t.Context()))
	_, err := s.Upload(old.Key, old.ID)
	wantErr(t, err, ErrNoUpload)
	if _, err := s.Upload(young.Key, young.ID); err != nil {
		t.Error(err)
	}
	if n := len(files(t, s)); n != 1 {
		t.Errorf("%d files", n)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, vm := range []gateway.ID{blog, shop} {
		put(t, s, Key{vm, "box", "small"}, []byte("x"))
		put(t, s, Key{vm, "box", "large"}, random(1, maxSmall+1))
	}
	for range 2 {
		must(t, s.Remove(blog))
	}
	_, err := s.Bucket(blog, "box")
	wantErr(t, err, ErrNoBucket)
	_, err = s.Put(t.Context(), Key{blog, "box", "late"}, Write{Body: bytes.NewReader(random(1, maxSmall+1)), Size: -1})
	wantErr(t, err, ErrRemoved)
	if n := len(files(t, s)); n != 1 {
		t.Errorf("%d files, want that of the other VM", n)
	}
	must(t, s.Remove(gateway.ID{9}))
	// A crash after the records are gone: the next start removes the files.
	b := s.index.NewBatch()
	all := vmKey(shop, 0, 0)[:vmKeyLen]
	must(t, errors.Join(b.DeleteRange(all, after(all), nil), b.Set(removalKey(shop), nil, nil), b.Commit(nil)))
	must(t, s.Close())
	s = open(t, dir)
	wantNothing(t, s)
}

// TestUploadsAreLimited begins uploads up to the limit, in two buckets: one that ends makes room for another, also
// after a new start.
func TestUploadsAreLimited(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.maxUploads = 3
	var begun []Upload
	for _, bucket := range []string{"a", "b", "b"} {
		u, err := s.NewUpload(Key{blog, bucket, "x"}, UploadOptions{})
		must(t, err)
		begun = append(begun, u)
	}
	_, err := s.NewUpload(Key{blog, "c", "x"}, UploadOptions{})
	wantErr(t, err, ErrTooManyUploads)
	_, err = s.NewUpload(Key{shop, "c", "x"}, UploadOptions{})
	must(t, err)
	must(t, s.Abort(begun[0].Key, begun[0].ID))
	must(t, s.Close())
	s = open(t, dir)
	s.maxUploads = 3
	p, err := s.PutPart(t.Context(), begun[1].Key, begun[1].ID, 1, Write{Body: bytes.NewReader([]byte("x")), Size: 1})
	must(t, err)
	_, err = s.Complete(t.Context(), begun[1].Key, begun[1].ID, []CompletedPart{{Number: 1, ETag: p.ETag}}, Completion{})
	must(t, err)
	for _, want := range []error{nil, nil, ErrTooManyUploads} {
		_, err := s.NewUpload(Key{blog, "c", "x"}, UploadOptions{})
		wantErr(t, err, want)
	}
}

// TestBucketsAreLimited makes buckets up to the limit, by name and by a first write: one that is deleted makes room,
// one that a restore brings back takes it, and a fork has as many as its source.
func TestBucketsAreLimited(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	s.maxBuckets = 3
	create := func(vm gateway.ID, name string, want error) {
		t.Helper()
		_, err := s.CreateBucket(vm, name, false)
		wantErr(t, err, want)
		if want != nil {
			_, err := s.Put(t.Context(), Key{vm, name, "x"}, Write{Body: bytes.NewReader(nil)})
			wantErr(t, err, want)
		}
	}
	create(blog, "a", nil)
	create(blog, "b", nil)
	put(t, s, Key{blog, "c", "x"}, nil)
	create(blog, "d", ErrTooManyBuckets)
	put(t, s, Key{blog, "a", "x"}, nil) // it is there
	_, err := s.CreateBucket(blog, "a", false)
	wantErr(t, err, ErrBucketExists)
	mark(t, s, blog, "at")
	must(t, s.DeleteBucket(blog, "b"))
	must(t, s.Close())
	s = open(t, dir)
	s.maxBuckets = 3
	create(blog, "d", nil)
	create(blog, "e", ErrTooManyBuckets)
	must(t, s.Restore(blog, "at"))
	create(blog, "d", ErrTooManyBuckets)
	mark(t, s, blog, "full")
	must(t, s.Fork(blog, "full", shop))
	create(shop, "d", ErrTooManyBuckets)
}
