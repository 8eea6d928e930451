package storage

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"

	"lodge/gateway/gatewaytest"
)

type hasher struct{ hash.Hash }

func (hasher) Close() {}

// signedChunks makes a request whose body minio-go's signer has signed chunk by chunk, with a signed
// trailer if there is a sum. It returns the body apart.
func (g guest) signedChunks(t *testing.T, path, data, sum string) (*http.Request, []byte) {
	t.Helper()
	keys := g.minted()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, g.url+path, io.NopCloser(strings.NewReader(data)))
	gatewaytest.Must(t, err)
	if sum != "" {
		r.Trailer = http.Header{"X-Amz-Checksum-Crc32": {sum}}
	}
	r = signer.StreamingSignV4(r, keys.AccessKey, keys.SecretKey, "", "us-east-1", int64(len(data)), time.Now().UTC(), hasher{sha256.New()})
	body, err := io.ReadAll(r.Body)
	gatewaytest.Must(t, err)
	return r, body
}

// damages are all ways to damage a body of chunks, by name.
func damages(body []byte) map[string][]byte {
	flip := func(at int) []byte {
		b := bytes.Clone(body)
		b[at] ^= 1
		return b
	}
	all := map[string][]byte{"empty": nil, "cut by one byte in the last chunk's line end": body[:len(body)-3]}
	at := 0
	for i := 0; ; i++ {
		line := bytes.IndexByte(body[at:], '\n') + 1
		if line == 0 || !bytes.Contains(body[at:at+line], []byte(";chunk-signature=")) {
			break
		}
		name, size := "chunk "+string(rune('0'+i)), 0
		for _, digit := range body[at : at+bytes.IndexByte(body[at:], ';')] {
			size = size<<4 | strings.IndexByte("0123456789abcdef", digit)
		}
		all["signature of "+name] = flip(at + line - 3)
		all["cut before "+name] = body[:at]
		if size > 0 { // behind the last one, clients may leave out the line end
			all["cut after the line of "+name] = body[:at+line]
			all["first byte of "+name], all["last byte of "+name] = flip(at+line), flip(at+line+size-1)
			all["cut in "+name] = body[:at+line+size/2]
			all["cut after the bytes of "+name] = body[:at+line+size]
		}
		if at += line; size > 0 {
			at += size + len("\r\n")
		}
	}
	if trailer := body[at:]; len(trailer) > len("\r\n") {
		sum := at + bytes.IndexByte(trailer, ':') + 1
		all["value of the trailer"] = flip(sum)
		all["name of the trailer"] = flip(at + len("x-amz-checksum-"))
		all["signature of the trailer"] = flip(at + bytes.LastIndexByte(trailer, ':') + 1)
		all["no trailer"] = append(bytes.Clone(body[:at]), "\r\n"...)
		all["no signature of the trailer"] = append(bytes.Clone(body[:at+bytes.IndexByte(trailer, '\n')]), "\r\n\r\n"...)
		all["cut before the trailer"] = body[:at]
		all["cut before the trailer's signature"] = body[:at+bytes.LastIndexByte(trailer, 'x')]
	}
	return all
}

// TestDamagedChunks damages a body that a minted key has signed, in every place: the object and the
// part that were there before stay.
func TestDamagedChunks(t *testing.T) {
	t.Parallel()
	g := newHost(t).guest("blog")
	core := minioCore(g)
	put(t, core.Client, "box", "k", []byte("old"))
	upload, err := core.NewMultipartUpload(t.Context(), "box", "up", putOptions())
	gatewaytest.Must(t, err)
	part, err := core.PutObjectPart(t.Context(), "box", "up", upload, 1, strings.NewReader("old"), 3, partOptions())
	gatewaytest.Must(t, err)
	unchanged := func(t *testing.T, what string) {
		t.Helper()
		if got := get(t, core.Client, "box", "k"); string(got) != "old" {
			t.Fatalf("%s: it is stored over the old object (%d bytes)", what, len(got))
		}
		list, err := core.ListObjectParts(t.Context(), "box", "up", upload, 0, 10)
		gatewaytest.Must(t, err)
		if len(list.ObjectParts) != 1 || strings.Trim(list.ObjectParts[0].ETag, `"`) != part.ETag {
			t.Fatalf("%s: it is stored over the old part: %v", what, list.ObjectParts)
		}
	}
	for kind, data := range map[string]string{"small": "0123456789", "whole chunks": string(random(2 * 64 << 10)), "three chunks": string(random(150_000))} {
		for trailer, sum := range map[string]string{"": "", " and trailer": base64CRC32(data)} {
			t.Run(kind+trailer, func(t *testing.T) {
				_, whole := g.signedChunks(t, "/box/k", data, sum)
				for what := range damages(whole) {
					for _, path := range []string{"/box/k", "/box/up?partNumber=1&uploadId=" + upload, "/new/k"} {
						r, body := g.signedChunks(t, path, data, sum)
						if res := answer(t, withBody(r, damages(body)[what])); res.status != 400 && res.status != 403 {
							t.Errorf("%s, %s: %d %s", what, path, res.status, res.body)
						}
					}
					unchanged(t, what)
				}
				if head := g.do(t, "HEAD", "/new", nil); head.status != 404 {
					t.Errorf("a new bucket: %d", head.status)
				}
				if res := answer(t, withBody(g.signedChunks(t, "/box/good", data, sum))); res.status != 200 {
					t.Errorf("undamaged: %d %s", res.status, res.body)
				} else if got := get(t, core.Client, "box", "good"); string(got) != data {
					t.Error("undamaged: other bytes")
				}
			})
		}
	}
}

func withBody(r *http.Request, body []byte) *http.Request {
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return r
}

// TestRejectedOverwrite sends bodies that differ from their headers to a key that exists.
func TestRejectedOverwrite(t *testing.T) {
	t.Parallel()
	g := newHost(t).guest("blog")
	const body = "hello, world"
	trailing := map[string]string{
		"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "X-Amz-Trailer": "x-amz-checksum-crc32", "X-Amz-Decoded-Content-Length": "12",
	}
	for name, c := range map[string]struct {
		header map[string]string
		body   string
	}{
		"MD5":                    {map[string]string{"Content-Md5": base64MD5("other")}, body},
		"SHA256":                 {map[string]string{"X-Amz-Content-Sha256": hexSHA256("other")}, body},
		"CRC32":                  {map[string]string{"X-Amz-Checksum-Crc32": base64CRC32("other")}, body},
		"trailer":                {trailing, chunked(body, "x-amz-checksum-crc32:"+base64CRC32("other"))},
		"no trailer":             {trailing, chunked(body, "")},
		"no last chunk":          {trailing, "c\r\n" + body + "\r\n"},
		"longer":                 {trailing, "c\r\n" + body + "\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32:" + base64CRC32(body) + "\r\n\r\n"},
		"MD5 of an empty body":   {map[string]string{"Content-Md5": base64MD5("other")}, ""},
		"CRC32 of an empty body": {map[string]string{"X-Amz-Checksum-Crc32": base64CRC32("other")}, ""},
		"SHA256 of an empty one": {map[string]string{"X-Amz-Content-Sha256": hexSHA256("other")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			put(t, g.dummy(), "box", "k", []byte("old"))
			if res := g.send(t, "PUT", "/box/k", "", c.body, c.header); res.status != 400 {
				t.Errorf("%d %s", res.status, res.body)
			}
			if got := get(t, g.dummy(), "box", "k"); string(got) != "old" {
				t.Errorf("it is stored over the old object: %q", got)
			}
		})
	}
}

// A client that leaves in the middle of a body leaves the old object, and the old part.
func TestCutBody(t *testing.T) {
	g := newHost(t).guest("blog")
	core := minioCore(g)
	put(t, core.Client, "box", "k", []byte("old"))
	g.halfWrite(t, "/box/k").cut()
	if got := get(t, core.Client, "box", "k"); string(got) != "old" {
		t.Errorf("got %q", got)
	}
	upload, err := core.NewMultipartUpload(t.Context(), "box", "up", putOptions())
	gatewaytest.Must(t, err)
	part, err := core.PutObjectPart(t.Context(), "box", "up", upload, 1, strings.NewReader("old"), 3, partOptions())
	gatewaytest.Must(t, err)
	for n := range 2 { // over a part, and anew
		g.halfWrite(t, fmt.Sprintf("/box/up?partNumber=%d&uploadId=%s", n+1, upload)).cut()
	}
	list, err := core.ListObjectParts(t.Context(), "box", "up", upload, 0, 10)
	gatewaytest.Must(t, err)
	if len(list.ObjectParts) != 1 || strings.Trim(list.ObjectParts[0].ETag, `"`) != part.ETag {
		t.Errorf("parts: %v", list.ObjectParts)
	}
}
