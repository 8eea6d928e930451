package storage

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/signer"

	"lodge/gateway/gatewaytest"
	"lodge/storage/sigv4"
)

func base64MD5(s string) string {
	sum := md5.Sum([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func hexSHA256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func base64CRC32(s string) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s))))
}

// chunked is text as one unsigned chunk with a trailer.
func chunked(text, trailer string) string {
	return fmt.Sprintf("%x\r\n%s\r\n0\r\n%s\r\n\r\n", len(text), text, trailer)
}

// TestCorrupted sends bodies that differ from their headers: none may become an object, nor
// leave a bucket behind.
func TestCorrupted(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	const body = "hello, world"
	streaming := map[string]string{
		"X-Amz-Content-Sha256": sigv4.StreamingTrailer, "X-Amz-Trailer": "x-amz-checksum-crc32",
		"X-Amz-Decoded-Content-Length": strconv.Itoa(len(body)), "Content-Encoding": "aws-chunked",
	}
	signed := map[string]string{"X-Amz-Content-Sha256": sigv4.StreamingSigned, "X-Amz-Decoded-Content-Length": strconv.Itoa(len(body))}
	for name, c := range map[string]struct {
		header map[string]string
		body   string
		code   string // empty: it is right, and is stored
	}{
		"right MD5":                {map[string]string{"Content-Md5": base64MD5(body)}, body, ""},
		"wrong MD5":                {map[string]string{"Content-Md5": base64MD5("other")}, body, "BadDigest"},
		"no MD5 at all":            {map[string]string{"Content-Md5": "x"}, body, "InvalidDigest"},
		"right SHA256":             {map[string]string{"X-Amz-Content-Sha256": hexSHA256(body)}, body, ""},
		"wrong SHA256":             {map[string]string{"X-Amz-Content-Sha256": hexSHA256("other")}, body, "XAmzContentSHA256Mismatch"},
		"right CRC32":              {map[string]string{"X-Amz-Checksum-Crc32": base64CRC32(body)}, body, ""},
		"wrong CRC32":              {map[string]string{"X-Amz-Checksum-Crc32": base64CRC32("other")}, body, "BadDigest"},
		"right trailer":            {streaming, chunked(body, "x-amz-checksum-crc32:"+base64CRC32(body)), ""},
		"wrong trailer":            {streaming, chunked(body, "x-amz-checksum-crc32:"+base64CRC32("other")), "BadDigest"},
		"missing trailer":          {streaming, chunked(body, ""), "IncompleteBody"},
		"other trailer":            {streaming, chunked(body, "x-amz-checksum-sha1:AAAA"), "IncompleteBody"},
		"too short":                {streaming, chunked(body[1:], "x-amz-checksum-crc32:"+base64CRC32(body[1:])), "IncompleteBody"},
		"too long":                 {streaming, chunked(body+"!", "x-amz-checksum-crc32:"+base64CRC32(body+"!")), "IncompleteBody"},
		"cut in the chunk":         {streaming, chunked(body, "")[:8], "IncompleteBody"},
		"cut before the end":       {streaming, chunked(body, "")[:len(body)+5], "IncompleteBody"},
		"not chunked":              {streaming, body, "IncompleteBody"},
		"signed, dummy key":        {signed, "c;chunk-signature=" + strings.Repeat("0", 64) + "\r\n" + body + "\r\n0;chunk-signature=" + strings.Repeat("0", 64) + "\r\n\r\n", ""},
		"signed, cut":              {signed, "c;chunk-signature=" + strings.Repeat("0", 64) + "\r\nhello", "IncompleteBody"},
		"unknown kind":             {map[string]string{"X-Amz-Content-Sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "X-Amz-Decoded-Content-Length": "1"}, "x", "NotImplemented"},
		"chunked, length unknown":  {map[string]string{"X-Amz-Content-Sha256": sigv4.StreamingTrailer}, chunked(body, ""), "MissingContentLength"},
		"hash that is no hash":     {map[string]string{"X-Amz-Content-Sha256": "abc"}, body, "InvalidArgument"},
		"two checksums, one wrong": {map[string]string{"Content-Md5": base64MD5("other"), "X-Amz-Checksum-Crc32": base64CRC32(body)}, body, "BadDigest"},
	} {
		t.Run(name, func(t *testing.T) {
			bucket := "b-" + hexSHA256(name)[:8]
			res := g.send(t, "PUT", "/"+bucket+"/k", "", c.body, c.header)
			if c.code == "" {
				if got := get(t, g.dummy(), bucket, "k"); res.status != 200 || string(got) != body {
					t.Fatalf("%d %s: got %q", res.status, res.body, got)
				}
				return
			}
			if res.status < 400 || !strings.Contains(res.body, "<Code>"+c.code+"</Code>") {
				t.Fatalf("want %s, got %d %s", c.code, res.status, res.body)
			}
			if head := g.do(t, "HEAD", "/"+bucket, nil); head.status != 404 { // at once: no work is left for it
				t.Errorf("the bucket was left behind: %d", head.status)
			}
		})
	}
}

// TestChunkedTransfer: over TLS, aws-cli sends the length of a body only in
// X-Amz-Decoded-Content-Length, and signs its Transfer-Encoding. (Its signature is a dummy's here;
// sigv4 has a test for the signature.)
func TestChunkedTransfer(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	const text = "a body of unknown length"
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, g.url+"/bucket/k", io.MultiReader(strings.NewReader(chunked(text, "x-amz-checksum-crc32:"+base64CRC32(text)))))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"X-Amz-Content-Sha256": sigv4.StreamingTrailer, "X-Amz-Trailer": "x-amz-checksum-crc32", "Content-Encoding": "aws-chunked",
		"X-Amz-Decoded-Content-Length": strconv.Itoa(len(text)),
	} {
		r.Header.Set(name, value)
	}
	r = signer.SignV4(*r, "any", "key", "", "us-east-1")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s %v", res.StatusCode, answer, err)
	}
	if got := get(t, g.dummy(), "bucket", "k"); string(got) != text {
		t.Errorf("got %q", got)
	}
}

// TestChunkSignatures corrupts a chunk that a minted key has signed.
func TestChunkSignatures(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	data := random(300_000)
	corrupting := client(t, g.url, g.minted().AccessKey, g.minted().SecretKey)
	keys := g.minted()
	c, err := minio.New(strings.TrimPrefix(g.url, "http://"), &minio.Options{
		Creds: staticCredentials(keys.AccessKey, keys.SecretKey), Region: "us-east-1", MaxRetries: 1,
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == "PUT" {
				r.Body = &corruptReader{ReadCloser: r.Body, at: 150_000}
			}
			return http.DefaultTransport.RoundTrip(r)
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.PutObject(t.Context(), "chunks", "k", bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{DisableMultipart: true})
	wantCode(t, err, "SignatureDoesNotMatch", 403)
	put(t, corrupting, "chunks", "k", data)
	if got := get(t, corrupting, "chunks", "k"); !bytes.Equal(got, data) {
		t.Fatal("other bytes")
	}
}

func TestPresigned(t *testing.T) {
	h := newHost(t)
	g, other := h.guest("blog"), h.guest("other")
	put(t, g.dummy(), "box", "k", []byte("x"))
	keyed, host := g.keyed(), h.listen(noVM())
	link := func(c *minio.Client, life time.Duration) string {
		u, err := c.PresignedGetObject(t.Context(), "box", "k", life, nil)
		if err != nil {
			t.Fatal(err)
		}
		return u.String()
	}
	fromHost := client(t, host, g.minted().AccessKey, g.minted().SecretKey)
	for name, c := range map[string]struct {
		url  string
		code string
	}{
		"in the VM":                {link(keyed, time.Hour), ""},
		"from the host's listener": {link(fromHost, time.Hour), ""},
		"dummy key":                {link(g.dummy(), time.Hour), "AccessDenied"},
		"other key changed":        {strings.Replace(link(keyed, time.Hour), "box/k", "box/l", 1), "SignatureDoesNotMatch"},
		"longer life":              {strings.Replace(link(keyed, time.Hour), "Expires=3600", "Expires=7200", 1), "SignatureDoesNotMatch"},
		"life of 8 days":           {strings.Replace(link(keyed, time.Hour), "Expires=3600", "Expires=691200", 1), "AuthorizationQueryParametersError"},
		"at another VM's tap":      {strings.Replace(link(keyed, time.Hour), g.url, other.url, 1), "InvalidAccessKeyId"},
		"signature version 2":      {g.url + "/box/k?AWSAccessKeyId=a&Signature=b&Expires=9999999999", "InvalidRequest"},
		"unsigned":                 {g.url + "/box/k", "AccessDenied"},
		"no parameters":            {g.url + "/box/k?X-Amz-Algorithm=AWS4-HMAC-SHA256", "AuthorizationQueryParametersError"},
		"version 4a":               {g.url + "/box/k?X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256", "AuthorizationQueryParametersError"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), "GET", c.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			res := answer(t, r)
			if c.code == "" && (res.status != 200 || res.body != "x") || c.code != "" && !strings.Contains(res.body, "<Code>"+c.code+"</Code>") {
				t.Fatalf("want %q, got %d %s", c.code, res.status, res.body)
			}
		})
	}
}

// What a presigned URL asks for in its query counts as in a header.
func TestPresignedParameters(t *testing.T) {
	g := newHost(t).guest("blog")
	put(t, g.dummy(), "box", "k", []byte("x"))
	for name, c := range map[string]struct {
		query  url.Values
		status int
		code   string
	}{
		"metadata":         {url.Values{"x-amz-meta-a": {"b"}}, 200, ""},
		"checksum of none": {url.Values{"x-amz-checksum-crc32": {"AAAAAA=="}, "x-amz-sdk-checksum-algorithm": {"CRC32"}}, 200, ""},
		"private":          {url.Values{"x-amz-acl": {"private"}}, 200, ""},
		"public":           {url.Values{"x-amz-acl": {"public-read"}}, 400, "AccessControlListNotSupported"},
		"encrypted":        {url.Values{"x-amz-server-side-encryption": {"AES256"}}, 200, ""},
		"many bytes":       {url.Values{"x-amz-meta-a": {strings.Repeat("b", 9000)}}, 400, "RequestHeaderSectionTooLarge"},
		"copy":             {url.Values{"x-amz-copy-source": {"box/none"}}, 404, "NoSuchKey"},
	} {
		u, err := g.keyed().Presign(t.Context(), "PUT", "box", "new", time.Hour, c.query)
		gatewaytest.Must(t, err)
		r, err := http.NewRequestWithContext(t.Context(), "PUT", u.String(), strings.NewReader("body"))
		gatewaytest.Must(t, err)
		if got := answer(t, r); got.status != c.status || c.code != "" && !strings.Contains(got.body, code(c.code)) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if head := g.do(t, "HEAD", "/box/new", nil); name == "metadata" && head.header.Get("X-Amz-Meta-A") != "b" {
			t.Errorf("%s: %v", name, head.header)
		}
	}
}
