package storage

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"
)

// TestOverwrite reads a key while it is written over and over: an ETag and the bytes that come with
// it always belong together.
func TestOverwrite(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.guest("blog")
	c := g.dummy()
	put(t, c, "box", "k", random(1000))
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				data := random(20_000)
				_, _ = c.PutObject(ctx, "box", "k", bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{}) // the end of the test may interrupt it
			}
		})
	}
	for range 300 {
		res := g.do(t, "GET", "/box/k", nil)
		sum := md5.Sum([]byte(res.body))
		if etag := res.header.Get("Etag"); etag != `"`+hex.EncodeToString(sum[:])+`"` {
			t.Errorf("%d: ETag %s of another content", res.status, etag)
			break
		}
	}
	stop()
	wg.Wait()
}

// TestUploads walks through what can happen to multipart uploads.
func TestUploads(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.guest("blog")
	core := minioCore(g)
	data := random(5<<20 + 10)
	begin := func(key string) (string, []minio.CompletePart) {
		id, err := core.NewMultipartUpload(t.Context(), "box", key, minio.PutObjectOptions{UserMetadata: map[string]string{"a": "b"}, UserTags: map[string]string{"t": "u"}})
		if err != nil {
			t.Fatal(err)
		}
		var parts []minio.CompletePart
		for i, part := range [][]byte{data[:5<<20], data[5<<20:]} {
			p, err := core.PutObjectPart(t.Context(), "box", key, id, i+1, bytes.NewReader(part), int64(len(part)), minio.PutObjectPartOptions{})
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, minio.CompletePart{PartNumber: i + 1, ETag: p.ETag})
		}
		return id, parts
	}
	id, parts := begin("k")
	var wg sync.WaitGroup
	for range 4 { // completed by several at once: each 200 means that the object is there
		wg.Go(func() {
			if _, err := core.CompleteMultipartUpload(t.Context(), "box", "k", id, parts, minio.PutObjectOptions{}); err != nil {
				t.Errorf("complete: %v", err)
			} else if got := get(t, core.Client, "box", "k"); !bytes.Equal(got, data) {
				t.Error("other bytes")
			}
		})
	}
	wg.Wait()
	info, err := core.StatObject(t.Context(), "box", "k", minio.StatObjectOptions{})
	if err != nil || info.UserMetadata["A"] != "b" || info.UserTagCount != 1 {
		t.Fatalf("got %+v, %v", info, err)
	}
	aborted, parts := begin("k")
	if err := core.AbortMultipartUpload(t.Context(), "box", "k", aborted); err != nil {
		t.Fatal(err)
	}
	_, err = core.CompleteMultipartUpload(t.Context(), "box", "k", aborted, parts, minio.PutObjectOptions{})
	wantCode(t, err, "NoSuchUpload", 404)
	_, parts = begin("l")
	parts[0].ETag = "0" + parts[0].ETag[1:]
	_, err = core.CompleteMultipartUpload(t.Context(), "box", "l", aborted, parts, minio.PutObjectOptions{})
	wantCode(t, err, "NoSuchUpload", 404)
}

// TestSemantics is what programs rely on: conditions, ranges, copies, tags, deletes.
func TestSemantics(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	g := h.guest("blog")
	c := g.dummy()
	info := put(t, c, "box", "k", []byte("0123456789"))

	t.Run("put only if there is none", func(t *testing.T) {
		if res := g.send(t, "PUT", "/box/k", "", "x", map[string]string{"If-None-Match": "*"}); res.status != 412 {
			t.Fatalf("%d %s", res.status, res.body)
		}
		if res := g.send(t, "PUT", "/box/new", "", "x", map[string]string{"If-None-Match": "*"}); res.status != 200 {
			t.Fatalf("%d %s", res.status, res.body)
		}
	})
	t.Run("put only if it is the same", func(t *testing.T) {
		if res := g.send(t, "PUT", "/box/k", "", "x", map[string]string{"If-Match": `"0"`}); res.status != 412 {
			t.Fatalf("%d %s", res.status, res.body)
		}
		if res := g.send(t, "PUT", "/box/k", "", "0123456789", map[string]string{"If-Match": `"` + info.ETag + `"`}); res.status != 200 {
			t.Fatalf("%d %s", res.status, res.body)
		}
	})
	t.Run("one of many wins", func(t *testing.T) {
		var wg sync.WaitGroup
		won := make(chan int, 20)
		for range 20 {
			wg.Go(func() { won <- g.send(t, "PUT", "/box/race", "", "x", map[string]string{"If-None-Match": "*"}).status })
		}
		wg.Wait()
		close(won)
		n := 0
		for status := range won {
			if status == 200 {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%d won", n)
		}
	})
	t.Run("range", func(t *testing.T) {
		for span, want := range map[string]string{"bytes=2-4": "234", "bytes=7-": "789", "bytes=-2": "89"} {
			if res := g.do(t, "GET", "/box/k", map[string]string{"Range": span}); res.status != 206 || res.body != want {
				t.Errorf("%s: %d %q", span, res.status, res.body)
			}
		}
		if res := g.do(t, "GET", "/box/k", map[string]string{"Range": "bytes=10-"}); res.status != 416 {
			t.Errorf("behind the end: %d", res.status)
		}
		if res := g.do(t, "GET", "/box/k", map[string]string{"If-None-Match": `"` + info.ETag + `"`}); res.status != 304 {
			t.Errorf("not modified: %d", res.status)
		}
	})
	t.Run("tags and metadata are copied", func(t *testing.T) {
		_, err := c.PutObject(t.Context(), "box", "src", strings.NewReader("x"), 1, minio.PutObjectOptions{
			UserTags: map[string]string{"a": "b c+d"}, UserMetadata: map[string]string{"m": "n"}, ContentType: "text/plain",
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, dst := range []string{"dst", "src"} {
			opts := minio.CopyDestOptions{Bucket: "box", Object: dst}
			if dst == "src" {
				opts.ReplaceMetadata, opts.UserMetadata = true, map[string]string{"m": "o"}
			}
			if _, err := c.CopyObject(t.Context(), opts, minio.CopySrcOptions{Bucket: "box", Object: "src"}); err != nil {
				t.Fatal(err)
			}
			got, err := c.GetObjectTagging(t.Context(), "box", dst, minio.GetObjectTaggingOptions{})
			if err != nil || got.ToMap()["a"] != "b c+d" {
				t.Fatalf("%s: %v, %v", dst, got, err)
			}
		}
		stat, err := c.StatObject(t.Context(), "box", "src", minio.StatObjectOptions{})
		if err != nil || stat.UserMetadata["M"] != "o" {
			t.Fatalf("%+v, %v", stat.UserMetadata, err)
		}
	})
	t.Run("as many tags as S3 allows", func(t *testing.T) {
		res := g.send(t, "PUT", "/box/tagged", "", "x", map[string]string{"X-Amz-Tagging": longTags()})
		if res.status != 200 {
			t.Fatalf("%d %s", res.status, res.body)
		}
		if res := g.send(t, "PUT", "/box/tagged", "", "x", map[string]string{"X-Amz-Tagging": longTags() + "&one=more"}); !strings.Contains(res.body, "InvalidTag") {
			t.Fatalf("%d %s", res.status, res.body)
		}
	})
	t.Run("strange keys", func(t *testing.T) {
		for _, key := range []string{"a b", "a+b", "a%20b", "a%2fb", "%2e%2e/x", "%252e%252e/x", "é/ü", "a?b#c&d=e;f", "~!$'()*,:@", `back\slash`, "emoji😀", "dir/", "a/b/c/d", "-", "...", "a..b", strings.Repeat("x", 1024), "<&>\"", "dir", "dir//x", "a/b"} {
			body := "of " + key
			put(t, c, "strange", key, []byte(body))
			if got := get(t, c, "strange", key); string(got) != body {
				t.Errorf("%q: got %q", key, got)
			}
		}
		n := 0
		for o := range c.ListObjects(t.Context(), "strange", minio.ListObjectsOptions{Recursive: true}) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
			if err := c.RemoveObject(t.Context(), "strange", o.Key, minio.RemoveObjectOptions{}); err != nil {
				t.Errorf("delete %q: %v", o.Key, err)
			}
			n++
		}
		if n != 21 {
			t.Errorf("%d keys were listed", n)
		}
		if err := c.RemoveBucket(t.Context(), "strange"); err != nil {
			t.Error(err)
		}
	})
	t.Run("a bucket with objects stays", func(t *testing.T) {
		wantCode(t, c.RemoveBucket(t.Context(), "box"), "BucketNotEmpty", 409)
	})
}
