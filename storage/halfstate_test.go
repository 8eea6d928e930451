package storage

import (
	"net/url"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"lodge/gateway/gatewaytest"
)

func removeOptions() minio.RemoveObjectOptions { return minio.RemoveObjectOptions{} }

// longTags are as many tags as S3 allows, as long as it allows.
func longTags() string {
	tags := url.Values{}
	for i := range 10 {
		tags.Set(strings.Repeat(string(rune('a'+i)), 128), strings.Repeat("v", 256))
	}
	return tags.Encode()
}

// A rejected write changes no object, and makes none, also where the key looks like a directory's.
func TestRejectedWrites(t *testing.T) {
	g := newHost(t).guest("blog")
	c := g.dummy()
	for name, header := range map[string]map[string]string{
		"MD5":    {"Content-Md5": base64MD5("other")},
		"CRC32":  {"X-Amz-Checksum-Crc32": base64CRC32("other")},
		"SHA256": {"X-Amz-Content-Sha256": hexSHA256("other")},
	} {
		t.Run(name, func(t *testing.T) {
			if res := g.send(t, "PUT", "/box/dir/", "", "", map[string]string{"X-Amz-Meta-A": "old"}); res.status != 200 {
				t.Fatalf("%d %s", res.status, res.body)
			}
			header["X-Amz-Meta-A"] = "new"
			for _, path := range []string{"/box/dir/", "/box/new/"} {
				if res := g.send(t, "PUT", path, "", "", header); res.status != 400 {
					t.Errorf("%s: %d %s", path, res.status, res.body)
				}
			}
			if head := g.do(t, "HEAD", "/box/dir/", nil); head.status != 200 || head.header.Get("X-Amz-Meta-A") != "old" {
				t.Errorf("the old one: %d, %v", head.status, head.header)
			}
			put(t, c, "box", "new", []byte("a file"))
			gatewaytest.Must(t, c.RemoveObject(t.Context(), "box", "new", removeOptions()))
		})
	}
}

// A completion that is refused leaves the old object, and the upload for the next try.
func TestRejectedComplete(t *testing.T) {
	g := newHost(t).guest("blog")
	core := minioCore(g)
	put(t, core.Client, "box", "k", []byte("old"))
	id, err := core.NewMultipartUpload(t.Context(), "box", "k", putOptions())
	gatewaytest.Must(t, err)
	var good []minio.CompletePart
	for n := 1; n <= 2; n++ {
		p, err := core.PutObjectPart(t.Context(), "box", "k", id, n, strings.NewReader("hello"), 5, partOptions())
		gatewaytest.Must(t, err)
		good = append(good, minio.CompletePart{PartNumber: n, ETag: p.ETag})
	}
	for name, c := range map[string]struct {
		parts []minio.CompletePart
		opts  minio.PutObjectOptions
	}{
		"too small":   {parts: good},
		"order":       {parts: []minio.CompletePart{good[1], good[0]}},
		"missing":     {parts: []minio.CompletePart{{PartNumber: 3, ETag: good[0].ETag}}},
		"other ETag":  {parts: []minio.CompletePart{{PartNumber: 1, ETag: "0" + good[0].ETag[1:]}}},
		"no ETag":     {parts: []minio.CompletePart{{PartNumber: 1, ETag: "x"}}},
		"none at all": {},
		"condition":   {parts: good[:1], opts: noneMatch()},
	} {
		if _, err := core.CompleteMultipartUpload(t.Context(), "box", "k", id, c.parts, c.opts); err == nil {
			t.Errorf("%s: it is completed", name)
		}
		if got := get(t, core.Client, "box", "k"); string(got) != "old" {
			t.Fatalf("%s: got %q", name, got)
		}
	}
	_, err = core.CompleteMultipartUpload(t.Context(), "box", "k", id, good[:1], putOptions())
	gatewaytest.Must(t, err)
	if got := get(t, core.Client, "box", "k"); string(got) != "hello" {
		t.Fatalf("got %q", got)
	}
}

func noneMatch() (o minio.PutObjectOptions) {
	o.SetMatchETagExcept("*")
	return o
}

// A copy that is refused leaves the old object, and makes no bucket.
func TestRejectedCopy(t *testing.T) {
	g := newHost(t).guest("blog")
	c := g.dummy()
	put(t, c, "box", "src", []byte("new"))
	put(t, c, "box", "k", []byte("old"))
	for name, header := range map[string]map[string]string{
		"no source":           {"X-Amz-Copy-Source": "/box/none"},
		"no source's bucket":  {"X-Amz-Copy-Source": "/none/src"},
		"source's condition":  {"X-Amz-Copy-Source": "/box/src", "X-Amz-Copy-Source-If-Match": `"0"`},
		"directive":           {"X-Amz-Copy-Source": "/box/src", "X-Amz-Metadata-Directive": "MOVE"},
		"source that is none": {"X-Amz-Copy-Source": "/"},
	} {
		for _, path := range []string{"/box/k", "/new/k"} {
			if res := g.do(t, "PUT", path, header); res.status < 400 {
				t.Errorf("%s, %s: %d %s", name, path, res.status, res.body)
			}
		}
		if got := get(t, c, "box", "k"); string(got) != "old" {
			t.Errorf("%s: got %q", name, got)
		}
		if head := g.do(t, "HEAD", "/new", nil); head.status != 404 {
			t.Errorf("%s: the bucket is left: %d", name, head.status)
		}
	}
}
