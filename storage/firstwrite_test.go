package storage

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/minio/minio-go/v7"

	"lodge/gateway/gatewaytest"
)

// A bucket does not exist while the first write to it is in progress, and the end of a failed one
// takes nothing from another.
func TestFirstWriteInProgress(t *testing.T) {
	g := newHost(t).guest("blog")
	c := g.dummy()
	failing := g.halfWrite(t, "/box/k")
	for _, call := range [][2]string{{"HEAD", "/box"}, {"GET", "/box/k"}, {"GET", "/box?uploads"}, {"GET", "/box?tagging"}, {"DELETE", "/box"}} {
		if got := g.do(t, call[0], call[1], nil); got.status != 404 {
			t.Errorf("%v: %d %s", call, got.status, got.body)
		}
	}
	if list, err := c.ListBuckets(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("buckets: %v, %v", list, err)
	}
	other := g.halfWrite(t, "/box/other")
	failing.cut()
	if got := g.do(t, "HEAD", "/box", nil); got.status != 404 {
		t.Errorf("after a failed write: %d", got.status)
	}
	other.send("llo")
	if res := other.answer(); res.status != 200 {
		t.Errorf("a good write beside a failed one: %d %s", res.status, res.body)
	}
	if got := get(t, c, "box", "other"); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

// A bucket that is made while the first write to it is in progress stays when that fails.
func TestMakeBucketDuringFirstWrite(t *testing.T) {
	g := newHost(t).guest("blog")
	failing := g.halfWrite(t, "/box/k")
	for _, want := range []int{200, 409} {
		if got := g.do(t, "PUT", "/box", nil); got.status != want {
			t.Errorf("make the bucket: %d %s instead of %d", got.status, got.body, want)
		}
	}
	failing.cut()
	if got := g.do(t, "HEAD", "/box", nil); got.status != 200 {
		t.Errorf("the bucket: %d", got.status)
	}
}

// A bucket that is deleted during a write is made once more by that write.
func TestDeleteBucketDuringWrite(t *testing.T) {
	g := newHost(t).guest("blog")
	c := g.dummy()
	late := g.halfWrite(t, "/box/k")
	put(t, c, "box", "l", nil)
	gatewaytest.Must(t, c.RemoveObject(t.Context(), "box", "l", removeOptions()))
	gatewaytest.Must(t, c.RemoveBucket(t.Context(), "box"))
	late.send("llo")
	if res := late.answer(); res.status != 200 {
		t.Errorf("the write: %d %s", res.status, res.body)
	}
	if got := get(t, c, "box", "k"); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}

// TestFirstWrites sends good and bad first writes and a creation of the same bucket at once.
func TestFirstWrites(t *testing.T) {
	t.Parallel()
	g := newHost(t).guest("blog")
	for i := range 25 {
		bucket := fmt.Sprintf("first-%d", i)
		var wg sync.WaitGroup
		for j := range 6 {
			wg.Go(func() {
				res := g.send(t, "PUT", fmt.Sprintf("/%s/bad%d", bucket, j), "", "hello", map[string]string{"Content-Md5": base64MD5("other")})
				if !strings.Contains(res.body, "BadDigest") {
					t.Errorf("bad: %d %s", res.status, res.body)
				}
			})
		}
		for j := range 3 {
			wg.Go(func() {
				if res := g.send(t, "PUT", fmt.Sprintf("/%s/good%d", bucket, j), "", "hello", nil); res.status != 200 {
					t.Errorf("good: %d %s", res.status, res.body)
				}
			})
		}
		wg.Go(func() {
			if res := g.do(t, "PUT", "/"+bucket, nil); res.status != 200 && res.status != 409 {
				t.Errorf("make the bucket: %d %s", res.status, res.body)
			}
		})
		wg.Wait()
		for j := range 3 {
			if got := g.do(t, "GET", fmt.Sprintf("/%s/good%d", bucket, j), nil); got.body != "hello" {
				t.Fatalf("%s: %d %s", bucket, got.status, got.body)
			}
		}
	}
}

// An upload begins in a bucket that is made with it.
func TestFirstUpload(t *testing.T) {
	g := newHost(t).guest("blog")
	core := minioCore(g)
	id, err := core.NewMultipartUpload(t.Context(), "uploads", "k", putOptions())
	gatewaytest.Must(t, err)
	part, err := core.PutObjectPart(t.Context(), "uploads", "k", id, 1, bytes.NewReader([]byte("hello")), 5, partOptions())
	gatewaytest.Must(t, err)
	_, err = core.CompleteMultipartUpload(t.Context(), "uploads", "k", id, []minio.CompletePart{{PartNumber: 1, ETag: part.ETag}}, putOptions())
	gatewaytest.Must(t, err)
	if got := get(t, core.Client, "uploads", "k"); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
}
