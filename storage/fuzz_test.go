package storage

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/storage/engine"
	"lodge/storage/sigv4"
)

// FuzzTarget: whatever host and path a request has, the path that goes to the engine decodes to
// exactly the bucket and the key that were checked, and has no part that means another place.
func FuzzTarget(f *testing.F) {
	for _, s := range [][2]string{{"s3.lodge.internal", "/b/k"}, {"box.s3.lodge.internal:80", "/k"}, {"..s3.lodge.internal", "/x"}, {"h", "/b%2f..%2fc/k"}, {"h", "//b/k"}, {"h", "/box/%252e%252e/x"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, host, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			return
		}
		got, err := parseTarget(&http.Request{Host: host, URL: u})
		if err != nil {
			return
		}
		if got.bucket != "" && engine.CheckBucket(got.bucket) != nil || got.key != "" && engine.CheckKey(got.key) != nil {
			t.Fatalf("%q %q gives %+v", host, raw, got)
		}
		plain, err := url.PathUnescape(got.path())
		if want := "/" + got.bucket; err != nil || plain != want && plain != want+"/"+got.key {
			t.Fatalf("%+v goes as %q", got, got.path())
		}
		for part := range strings.SplitSeq(strings.Trim(plain, "/"), "/") {
			if part == "." || part == ".." {
				t.Fatalf("%+v goes as %q", got, got.path())
			}
		}
		if strings.Contains(got.bucket, gateway.S3Host) {
			t.Fatalf("%q gives %+v", host, got)
		}
	})
}

// FuzzRechunk: a decoded body is written anew with exactly the length that was computed before, and
// decodes to the same again.
func FuzzRechunk(f *testing.F) {
	f.Add([]byte("hello"), "AAAAAA==")
	f.Add(make([]byte, 3*rechunkBytes), "AAAAAA==")
	f.Fuzz(func(t *testing.T, data []byte, sum string) {
		if strings.ContainsAny(sum, "\r\n") || strings.TrimSpace(sum) != sum {
			return
		}
		const name = "x-amz-checksum-crc32"
		body := fmt.Sprintf("%x\r\n%s\r\n0\r\n%s:%s\r\n\r\n", len(data), data, name, sum)
		if len(data) == 0 {
			body = fmt.Sprintf("0\r\n%s:%s\r\n\r\n", name, sum)
		}
		size := int64(len(data))
		out, err := io.ReadAll(&rechunker{src: sigv4.NewReader(strings.NewReader(body), sigv4.StreamingTrailer, size, nil), trailer: name, sum: 8, buf: make([]byte, rechunkBytes)})
		if (err == nil) != (len(sum) == 8) {
			t.Fatalf("a sum of %d bytes: %v", len(sum), err)
		}
		if err != nil {
			return
		}
		if want := rechunkedLength(size, name, 8); int64(len(out)) != want {
			t.Fatalf("%d bytes instead of %d", len(out), want)
		}
		again := sigv4.NewReader(bytes.NewReader(out), sigv4.StreamingTrailer, size, nil)
		if got, err := io.ReadAll(again); err != nil || !bytes.Equal(got, data) || again.Trailers()[0].Value != sum {
			t.Fatalf("it comes back as %d bytes, %v", len(got), err)
		}
	})
}
