package store

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMetaReturns stores all that a client can set, and reads it back after a new start.
func TestMetaReturns(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	key := Key{blog, "box", "x"}
	meta := Meta{
		Header: map[string]string{"content-type": "text/plain", "x-amz-meta-a": ""}, Tags: map[string]string{"k": "v"},
		Retention: Retention{Compliance, time.Unix(2e9, 5).UTC()}, LegalHold: true, Sealed: []byte{0, 1}, ACL: "public-read",
	}
	sum := Checksum{Algorithm: "CRC32", Value: []byte{1, 2, 3, 4}, Composite: true}
	o, err := s.Put(t.Context(), key, Write{
		Body: strings.NewReader("hello"), Size: -1, Meta: meta,
		Checksum: func() Checksum { return sum }, ETag: func() string { return "tag" },
	})
	if err != nil || o.ETag != "tag" {
		t.Fatal(o, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, dir).Head(key, "")
	if diff := cmp.Diff(o, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	if diff := cmp.Diff(meta, got.Meta); diff != "" {
		t.Error(diff)
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// TestRefusedWriteLeavesTheOldObject refuses writes in each way, small and large: the old object stays, and no
// file.
func TestRefusedWriteLeavesTheOldObject(t *testing.T) {
	s := open(t, t.TempDir())
	key := Key{blog, "box", "x"}
	old := random(1, maxSmall+1)
	etag := put(t, s, key, old).ETag
	broken := errors.New("broken")
	before := len(files(t, s))
	for _, size := range []int{5, maxSmall + 5, 2 * chunkBytes} {
		body := func() io.Reader { return bytes.NewReader(random(2, size)) }
		wrong, other := md5.Sum(nil), int64(7)
		for name, c := range map[string]struct {
			w    Write
			want error
		}{
			"body":     {Write{Body: io.MultiReader(body(), failingReader{broken}), Size: -1}, broken},
			"wrapped":  {Write{Body: io.MultiReader(body(), failingReader{fmt.Errorf("cut: %w", io.EOF)}), Size: -1}, io.EOF},
			"cut":      {Write{Body: io.MultiReader(body(), failingReader{io.ErrUnexpectedEOF}), Size: -1}, io.ErrUnexpectedEOF},
			"short":    {Write{Body: body(), Size: int64(size) + 1}, ErrSize},
			"long":     {Write{Body: body(), Size: int64(size) - 1}, ErrSize},
			"md5":      {Write{Body: body(), Size: -1, MD5: wrong[:]}, ErrDigest},
			"match":    {Write{Body: body(), Size: -1, If: Condition{IfMatch: "other"}}, ErrPrecondition},
			"none":     {Write{Body: body(), Size: -1, If: Condition{IfNoneMatch: "*"}}, ErrPrecondition},
			"none tag": {Write{Body: body(), Size: -1, If: Condition{IfNoneMatch: etag}}, ErrPrecondition},
			"size":     {Write{Body: body(), Size: -1, If: Condition{IfSize: &other}}, ErrPrecondition},
			"time":     {Write{Body: body(), Size: -1, If: Condition{IfModified: time.Unix(1, 0)}}, ErrPrecondition},
			"meta":     {Write{Body: body(), Size: -1, Meta: Meta{Header: map[string]string{"h": strings.Repeat("x", maxMeta)}}}, ErrTooLarge},
		} {
			if _, err := s.Put(t.Context(), key, c.w); !errors.Is(err, c.want) {
				t.Errorf("%s, %d bytes: %v, want %v", name, size, err, c.want)
			}
		}
		_, err := s.Put(t.Context(), Key{blog, "box", "y"}, Write{Body: body(), Size: -1, If: Condition{IfMatch: "*"}})
		wantErr(t, err, ErrNoKey)
	}
	wantBody(t, s, key, "", old)
	if n := len(files(t, s)); n != before {
		t.Errorf("%d files, %d before", n, before)
	}
}

func TestOneWriterWins(t *testing.T) {
	s := open(t, t.TempDir())
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			_, err := s.Put(t.Context(), Key{blog, "new", "x"}, Write{Body: bytes.NewReader([]byte{byte(i)}), Size: 1, If: Condition{IfNoneMatch: "*"}})
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, ErrPrecondition) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d writers won", won.Load())
	}
}

// TestFirstWrites writes to new buckets many times at once: none is lost, and there is one bucket of each name.
func TestFirstWrites(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 20 {
		bucket := string(rune('a' + i))
		for j := range 6 {
			wg.Go(func() {
				key := Key{blog, bucket, string(rune('a' + j))}
				if j%2 == 0 {
					_, err := s.Put(t.Context(), key, Write{Body: failingReader{io.ErrUnexpectedEOF}})
					if err == nil {
						t.Error("stored a cut body")
					}
					return
				}
				put(t, s, key, []byte("x"))
				if _, err := s.Head(key, ""); err != nil {
					t.Error(key, err)
				}
			})
		}
	}
	wg.Wait()
	all, _, err := s.Buckets(blog, "", "", 100)
	if err != nil || len(all) != 20 {
		t.Errorf("%d buckets, %v", len(all), err)
	}
}

func TestRetention(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := open(t, t.TempDir(), func(c *Config) { c.Now = func() time.Time { return now } })
	if _, err := s.CreateBucket(blog, "box", true); err != nil {
		t.Fatal(err)
	}
	key := Key{blog, "box", "x"}
	for _, c := range []struct {
		meta          Meta
		plain, bypass error
	}{
		{Meta{}, nil, nil},
		{Meta{LegalHold: true}, ErrLocked, ErrLocked},
		{Meta{Retention: Retention{Governance, now.Add(time.Hour)}}, ErrLocked, nil},
		{Meta{Retention: Retention{Compliance, now.Add(time.Hour)}}, ErrLocked, ErrLocked},
		{Meta{Retention: Retention{Compliance, now.Add(-time.Hour)}}, nil, nil},
	} {
		for bypass, want := range map[bool]error{false: c.plain, true: c.bypass} {
			o, err := s.Put(t.Context(), key, Write{Body: strings.NewReader("x"), Size: 1, Meta: c.meta})
			if err != nil {
				t.Fatal(err)
			}
			if m, err := s.Delete(t.Context(), key, "", Condition{}, false); err != nil || !m.Deleted {
				t.Errorf("a marker above a retained version: %+v, %v", m, err)
			}
			if _, err := s.Delete(t.Context(), key, o.Version, Condition{}, bypass); !errors.Is(err, want) {
				t.Errorf("%+v bypass=%v: %v, want %v", c.meta, bypass, err, want)
			}
		}
	}
}

func TestMultipartErrors(t *testing.T) {
	s := open(t, t.TempDir())
	key := Key{blog, "box", "x"}
	u, err := s.NewUpload(key, UploadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	part := func(number, size int) CompletedPart {
		p, err := s.PutPart(t.Context(), key, u.ID, number, Write{Body: bytes.NewReader(random(uint64(number), size)), Size: int64(size)})
		if err != nil {
			t.Fatal(err)
		}
		return CompletedPart{Number: number, ETag: p.ETag}
	}
	one, two, small := part(1, minPart), part(2, minPart), part(3, 10)
	size := int64(1)
	for name, c := range map[string]struct {
		parts []CompletedPart
		c     Completion
		want  error
	}{
		"none":         {nil, Completion{}, ErrPart},
		"missing":      {[]CompletedPart{one, {Number: 7, ETag: one.ETag}}, Completion{}, ErrPart},
		"first absent": {[]CompletedPart{{Number: 0, ETag: one.ETag}, one}, Completion{}, ErrPart},
		"etag":         {[]CompletedPart{{Number: 1, ETag: two.ETag}}, Completion{}, ErrPart},
		"checksum":     {[]CompletedPart{{Number: 1, ETag: one.ETag, Checksum: []byte{1}}}, Completion{}, ErrPart},
		"order":        {[]CompletedPart{two, one}, Completion{}, ErrPartOrder},
		"twice":        {[]CompletedPart{one, one}, Completion{}, ErrPartOrder},
		"small":        {[]CompletedPart{one, small, part(4, 10)}, Completion{}, ErrPartSmall},
		"size":         {[]CompletedPart{one}, Completion{Size: &size}, ErrSize},
		"condition":    {[]CompletedPart{one}, Completion{If: Condition{IfMatch: "*"}}, ErrNoKey},
	} {
		if _, err := s.Complete(t.Context(), key, u.ID, c.parts, c.c); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	for _, number := range []int{-1, 0, 10_001} {
		_, err := s.PutPart(t.Context(), key, u.ID, number, Write{})
		wantErr(t, err, ErrPartNumber)
	}
	for _, id := range []string{"", "x", uploadID(999), strings.ToUpper(u.ID) + "0"} {
		_, err := s.PutPart(t.Context(), key, id, 1, Write{})
		wantErr(t, err, ErrNoUpload)
	}
	for _, other := range []Key{{blog, "box", "y"}, {blog, "box", "x\x01"}} {
		_, err := s.PutPart(t.Context(), other, u.ID, 1, Write{})
		wantErr(t, err, ErrNoUpload)
		wantErr(t, s.Abort(other, u.ID), ErrNoUpload)
	}
	put(t, s, Key{shop, "box", "x"}, nil)
	_, err = s.Upload(Key{shop, "box", "x"}, u.ID)
	wantErr(t, err, ErrNoUpload)

	o, err := s.Complete(t.Context(), key, u.ID, []CompletedPart{one, two, small}, Completion{})
	if err != nil || !strings.HasSuffix(o.ETag, "-3") || o.Parts != 3 {
		t.Fatal(o, err)
	}
	page, err := s.PartsOf(key, "", 1, 1)
	if err != nil || len(page.Parts) != 1 || page.Parts[0].Offset != minPart || !page.More {
		t.Errorf("parts %+v, %v", page, err)
	}
	testRanges(t, s, key, append(append(random(1, minPart), random(2, minPart)...), random(3, 10)...))
}

// testRanges reads from many offsets on.
func testRanges(t *testing.T, s *Store, key Key, want []byte) {
	t.Helper()
	b, err := s.Get(key, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, from := range []int64{0, 1, chunkBytes - 1, chunkBytes, minPart - 1, minPart, 2 * minPart, int64(len(want)) - 1, int64(len(want))} {
		if _, err := b.Seek(from, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		n := min(int64(len(want))-from, chunkBytes+5)
		var got bytes.Buffer
		if _, err := b.CopyN(&got, n); err != nil || !bytes.Equal(got.Bytes(), want[from:from+n]) {
			t.Errorf("from %d: %d bytes, %v", from, got.Len(), err)
		}
		if _, err := b.Seek(from, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(io.LimitReader(b, n)); err != nil || !bytes.Equal(got, want[from:from+n]) {
			t.Errorf("from %d: read %d bytes, %v", from, len(got), err)
		}
	}
}

// TestReadersDoNotTear reads a key while it is replaced and deleted: each body is one that was written, and
// what a reader has open stays readable.
func TestReadersDoNotTear(t *testing.T) {
	s := open(t, t.TempDir())
	key := Key{blog, "box", "x"}
	var bodies [][]byte
	for i, size := range sizes {
		bodies = append(bodies, random(uint64(i), size))
	}
	put(t, s, key, bodies[0])
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				b, err := s.Get(key, "")
				if errors.Is(err, ErrNoKey) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(b)
				_ = b.Close()
				if sum := md5.Sum(got); err != nil || b.ETag != hexOf(sum[:]) {
					t.Errorf("%d of %d bytes, %v", len(got), b.Size, err)
					return
				}
			}
		})
	}
	for i := range 60 {
		if i%7 == 6 {
			if _, err := s.Delete(t.Context(), key, "", Condition{}, false); err != nil {
				t.Error(err)
			}
		}
		put(t, s, key, bodies[i%len(bodies)])
	}
	close(done)
	wg.Wait()
}
