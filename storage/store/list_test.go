package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// naive is a listing by S3's rules from all names, in pages of one.
func naive(names []string, q Query) (objects, prefixes []string) {
	for _, name := range names {
		if !strings.HasPrefix(name, q.Prefix) || name <= q.After && q.After != "" || name < q.From {
			continue
		}
		if q.Delimiter != "" {
			if head, _, found := strings.Cut(name[len(q.Prefix):], q.Delimiter); found {
				folded := q.Prefix + head + q.Delimiter
				if folded != q.After && !slices.Contains(prefixes, folded) {
					prefixes = append(prefixes, folded)
				}
				continue
			}
		}
		objects = append(objects, name)
	}
	return objects, prefixes
}

func TestListWithDelimiter(t *testing.T) {
	s := open(t, t.TempDir())
	names := []string{
		"a", "a/", "a/b", "a/b/c", "a/z", "a0", "b/1", "b/2", "c", "d//", "d//e", "d/f", "\xff", "\xff/\xff", "\xff\xff/x", "\xff\xff\xff",
	}
	slices.Sort(names)
	for _, name := range names {
		put(t, s, Key{blog, "box", name}, []byte(name))
	}
	for _, q := range []Query{
		{},
		{Delimiter: "/"},
		{Delimiter: "/", Prefix: "a/"},
		{Delimiter: "/", Prefix: "a"},
		{Delimiter: "/b", Prefix: "a"},
		{Delimiter: "/", Prefix: "d/"},
		{Delimiter: "/", After: "a/"},
		{Delimiter: "/", After: "a/b"},
		{Delimiter: "/", From: "a/b"},
		{Delimiter: "/", After: "\xff"},
		{Delimiter: "\xff"},
		{Prefix: "\xff"},
		{Prefix: "none"},
		{After: "a0"},
		{From: "a0"},
		{From: "b", After: "a"},
		{Prefix: "a/", After: "b"},
		{Prefix: "b", After: "a"},
	} {
		for _, most := range []int{1, 2, 100} {
			for _, versions := range []bool{false, true} {
				q.VM, q.Bucket, q.Max, q.Versions = blog, "box", most, versions
				wantObjects, wantPrefixes := naive(names, q)
				objects, prefixes := walkPages(t, s, q)
				if !slices.Equal(objects, wantObjects) || !slices.Equal(prefixes, wantPrefixes) {
					t.Errorf("%+v: got %q, %q; want %q, %q", q, objects, prefixes, wantObjects, wantPrefixes)
				}
			}
		}
	}
}

func walkPages(t *testing.T, s *Store, q Query) (objects, prefixes []string) {
	t.Helper()
	for range 1000 {
		p, err := s.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.Objects) + len(p.Prefixes); n > q.Max {
			t.Errorf("a page of %d, at most %d", n, q.Max)
		}
		objects, prefixes = append(objects, listed(p)...), append(prefixes, p.Prefixes...)
		if !p.More {
			return objects, prefixes
		}
		q.After, q.AfterVersion = p.Next, p.NextVersion
	}
	t.Fatal("the listing has no end")
	return nil, nil
}

func TestUploadsInPages(t *testing.T) {
	s := open(t, t.TempDir())
	var want []string
	for _, name := range []string{"a", "a/x", "b"} {
		for range 3 {
			u, err := s.NewUpload(Key{blog, "box", name}, UploadOptions{Algorithm: "CRC32"})
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, name+" "+u.ID)
		}
	}
	for most := 1; most < 5; most++ {
		var got []string
		q := Query{VM: blog, Bucket: "box", Max: most}
		for range 20 {
			p, err := s.Uploads(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range p.Uploads {
				got = append(got, u.Key.Name+" "+u.ID)
			}
			if !p.More {
				break
			}
			q.After, q.AfterVersion = p.Next, p.NextUpload
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %q, want %q", most, got, want)
		}
	}
	p, err := s.Uploads(t.Context(), Query{VM: blog, Bucket: "box", Delimiter: "/"})
	if err != nil || len(p.Uploads) != 6 || fmt.Sprint(p.Prefixes) != "[a/]" {
		t.Errorf("%d uploads, %v, %v", len(p.Uploads), p.Prefixes, err)
	}
	wantErr(t, s.DeleteBucket(blog, "box"), ErrBucketNotEmpty)
}

// TestListingsAreLight lists a bucket, an object, a version and an upload with much metadata: the listings have
// the storage class, and tags where they are asked for.
func TestListingsAreLight(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := s.CreateBucket(blog, "box", true)
	must(t, err)
	must(t, s.ConfigureBucket(blog, "box", func(b *Bucket) error { b.Config["cors"] = []byte("c"); return nil }))
	meta := Meta{
		Header: map[string]string{"content-type": "text/plain", storageClass: "GLACIER", "x-amz-meta-a": strings.Repeat("x", 1000)},
		Tags:   map[string]string{"k": "v"}, Sealed: []byte("seal"), ACL: "private", LegalHold: true,
	}
	light := Meta{Header: map[string]string{storageClass: "GLACIER"}}
	withTags := Meta{Header: light.Header, Tags: meta.Tags}
	for range 2 {
		_, err = s.Put(t.Context(), Key{blog, "box", "x"}, Write{Body: strings.NewReader("x"), Size: 1, Meta: meta})
		must(t, err)
	}
	_, err = s.NewUpload(Key{blog, "box", "x"}, UploadOptions{Meta: meta})
	must(t, err)
	for _, versions := range []bool{false, true} {
		for tags, want := range map[bool]Meta{false: light, true: withTags} {
			p, err := s.List(t.Context(), Query{VM: blog, Bucket: "box", Versions: versions, Tags: tags})
			must(t, err)
			for _, o := range p.Objects {
				if diff := cmp.Diff(want, o.Meta); diff != "" || o.Size != 1 || o.ETag == "" || o.Version == "" {
					t.Errorf("%+v %s", o, diff)
				}
			}
			if len(p.Objects) != 1 && !versions {
				t.Errorf("%d objects", len(p.Objects))
			}
		}
	}
	u, err := s.Uploads(t.Context(), Query{VM: blog, Bucket: "box"})
	if err != nil || len(u.Uploads) != 1 || cmp.Diff(light, u.Uploads[0].Meta) != "" {
		t.Errorf("uploads %+v, %v", u, err)
	}
	b, _, err := s.Buckets(blog, "", "", 10)
	if err != nil || len(b) != 1 || b[0].Config != nil || !b[0].Lock || b[0].Created.IsZero() {
		t.Errorf("buckets %+v, %v", b, err)
	}
}
