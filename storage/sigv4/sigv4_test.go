package sigv4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/minio-go/v7/pkg/signer"
)

// request is GET /examplebucket/test.txt of AWS's "Signature Calculations" examples for S3.
func example(method, path, query string, header map[string]string) *http.Request {
	r := &http.Request{Method: method, Host: "examplebucket.s3.amazonaws.com", Header: http.Header{}, URL: &url.URL{Path: path, RawQuery: query}}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	return r
}

// TestExamples are the worked examples of AWS's documentation (header-based and query
// authentication).
func TestExamples(t *testing.T) {
	const key, secret = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	now := time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	credential := "AWS4-HMAC-SHA256 Credential=" + key + "/20130524/us-east-1/s3/aws4_request,"
	for name, r := range map[string]*http.Request{
		"get": example("GET", "/test.txt", "", map[string]string{
			"Range": "bytes=0-9", "X-Amz-Content-Sha256": emptySHA256, "X-Amz-Date": "20130524T000000Z",
			"Authorization": credential + "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
		}),
		"put": example("PUT", "/test$file.text", "", map[string]string{
			"Date": "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Date": "20130524T000000Z", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY",
			"X-Amz-Content-Sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
			"Authorization":        credential + "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class,Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
		}),
		"list": example("GET", "/", "max-keys=2&prefix=J", map[string]string{
			"X-Amz-Content-Sha256": emptySHA256, "X-Amz-Date": "20130524T000000Z",
			"Authorization": credential + "SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
		}),
		"presigned": example("GET", "/test.txt", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&"+
			"X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", nil),
	} {
		t.Run(name, func(t *testing.T) {
			a, err := Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Verify(r, secret, now.Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Verify(r, secret+"x", now); !errors.Is(err, ErrMismatch) {
				t.Fatalf("another secret: %v", err)
			}
			if _, err := a.Verify(r, secret, now.Add(25*time.Hour)); !errors.Is(err, ErrSkewed) && !errors.Is(err, ErrExpired) {
				t.Fatalf("a day later: %v", err)
			}
			r.Header.Set("X-Amz-Copy-Source", "/other/key")
			if _, err := a.Verify(r, secret, now); !errors.Is(err, ErrNotSigned) {
				t.Fatalf("with a header that is not signed: %v", err)
			}
		})
	}
}

// TestPeer verifies what another implementation signs.
func TestPeer(t *testing.T) {
	for _, path := range []string{"/b/k", "/b/a b+c%d/é", "/b/a;b=c&d?e#f", "/b/~!$'()*,:@"} {
		// "ab" is before "ab-c" as a name, "ab=1" behind "ab-c=2" as a text.
		u := url.URL{Scheme: "http", Host: "s3.lodge.internal:80", Path: path, RawPath: Escape(path, true), RawQuery: "list-type=2&prefix=a%2Fb%20c&x=&ab=1&ab-c=2"}
		r := &http.Request{Method: "GET", URL: &u, Host: u.Host, Header: http.Header{"X-Amz-Content-Sha256": {Unsigned}, "X-Amz-Meta-A": {"  b   c "}}}
		r = signer.SignV4(*r, "key", "secret", "", "eu-north-1")
		a, err := Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Verify(r, "secret", time.Now()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// The canonical request has each signed header once, however often it is named.
func TestSignedHeaders(t *testing.T) {
	for list, good := range map[string]bool{
		"host": true, "host;x-amz-date": true, "a;host;z": true,
		"": false, ";": false, "host;": false, "host;host": false, "x-amz-date;host": false, "Host;host": false, "HOST;Host": false, "host;" + strings.Repeat("x;", 300): false,
	} {
		credential := "k/20130524/us-east-1/s3/aws4_request"
		inHeader := example("GET", "/k", "", map[string]string{
			"X-Amz-Date": "20130524T000000Z", "Authorization": algorithm + " Credential=" + credential + ",SignedHeaders=" + list + ",Signature=" + strings.Repeat("0", 64),
		})
		inQuery := example("GET", "/k", url.Values{
			"X-Amz-Algorithm": {algorithm}, "X-Amz-Credential": {credential}, "X-Amz-Date": {"20130524T000000Z"}, "X-Amz-Expires": {"1"},
			"X-Amz-SignedHeaders": {list}, "X-Amz-Signature": {strings.Repeat("0", 64)},
		}.Encode(), nil)
		for _, r := range []*http.Request{inHeader, inQuery} {
			if _, err := Parse(r); (err == nil) != good || err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("%q: %v", list, err)
			}
		}
	}
}

// TestSignedTransferEncoding: botocore signs it, over TLS where its bodies are chunked, and
// net/http takes it out of the headers.
func TestSignedTransferEncoding(t *testing.T) {
	r := example(http.MethodPut, "/bucket/key", "", map[string]string{
		"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "Transfer-Encoding": "chunked",
	})
	signed := signer.SignV4(*r, "key", "secret", "", "us-east-1")
	if !strings.Contains(signed.Header.Get("Authorization"), "transfer-encoding") {
		t.Fatal("the signer left transfer-encoding out: the test shows nothing")
	}
	signed.Header.Del("Transfer-Encoding")
	signed.TransferEncoding = []string{"chunked"}
	a, err := Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Verify(signed, "secret", time.Now()); err != nil {
		t.Error(err)
	}
}

func TestChunkExample(t *testing.T) {
	// AWS: "Signature Calculations for the Authorization Header: Transferring Payload in Multiple
	// Chunks".
	chain := &Chain{
		key:  signingKey("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1"),
		time: "20130524T000000Z", scope: "20130524/us-east-1/s3/aws4_request",
		last: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
	}
	var body bytes.Buffer
	for _, c := range []struct {
		n   int
		sig string
	}{
		{65536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"},
		{1024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"},
		{0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"},
	} {
		fmt.Fprintf(&body, "%x;chunk-signature=%s\r\n%s\r\n", c.n, c.sig, strings.Repeat("a", c.n))
	}
	whole := body.Bytes()
	data, err := io.ReadAll(NewReader(iotest.OneByteReader(bytes.NewReader(whole)), StreamingSigned, 66560, chain))
	if err != nil || len(data) != 66560 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
}

// FuzzParse: whatever a request has, Parse neither panics nor accepts what Verify then crashes on,
// and nothing but the right signature verifies.
func FuzzParse(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=k/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature="+strings.Repeat("0", 64), "20130524T000000Z", "/b/k", "a=b")
	f.Add("", "", "/", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k/20130524/r/s3/aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=1&X-Amz-SignedHeaders=host&X-Amz-Signature="+strings.Repeat("0", 64))
	f.Add("AWS k:s", "", "/", "")
	f.Fuzz(func(t *testing.T, header, date, path, query string) {
		r := &http.Request{Method: "GET", Host: "h", Header: http.Header{}, URL: &url.URL{Path: path, RawQuery: query}}
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		if date != "" {
			r.Header.Set("X-Amz-Date", date)
		}
		a, err := Parse(r)
		if err != nil {
			return
		}
		if a.AccessKey == "" || len(a.Signature) != 64 {
			t.Fatalf("accepted %+v", a)
		}
		if _, err := a.Verify(r, "secret that nobody has", a.Time); err == nil {
			t.Fatalf("verified %+v", a)
		}
	})
}

// FuzzSign: what Sign signs verifies, whatever the path, the query and the headers are.
func FuzzSign(f *testing.F) {
	f.Add("/b/k", "a=b&a=c", "v  w ")
	f.Add("/b/a%2fb/é //", "x=%20+&y", "\t")
	f.Fuzz(func(t *testing.T, path, query, meta string) {
		if _, err := url.ParseQuery(query); err != nil || strings.ContainsAny(meta, "\r\n\x00") {
			return
		}
		r := &http.Request{Method: "PUT", Host: "h", Header: http.Header{"X-Amz-Meta-A": {meta}, "X-Amz-Content-Sha256": {Unsigned}}, URL: &url.URL{Path: path, RawQuery: query}}
		now := time.Now()
		if r.URL.Query().Has("X-Amz-Signature") || Sign(r, "k", "s", "r", now) != nil {
			return
		}
		a, err := Parse(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Verify(r, "s", now); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzReader: the decoder gives all that was announced only together with io.EOF, never more, and
// the same whether it is read in large pieces or byte by byte.
func FuzzReader(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n"), int64(5))
	f.Add([]byte("2;chunk-signature=x\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), int64(5))
	f.Add([]byte("ffffffffffffffff\r\n"), int64(1<<62))
	f.Add([]byte("5\r\nhello\r\n"), int64(5))
	f.Add([]byte("5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"), int64(5))
	f.Fuzz(func(t *testing.T, body []byte, size int64) {
		if size < 0 {
			return
		}
		whole := NewReader(bytes.NewReader(body), StreamingTrailer, size, nil)
		data, err := io.ReadAll(whole)
		if int64(len(data)) > size || (err == nil) != (int64(len(data)) == size) && (err == nil || size > 0) {
			t.Fatalf("%d bytes of %d, %v", len(data), size, err)
		}
		if err != nil && !errors.Is(err, ErrChunked) {
			t.Fatalf("a new kind of error: %v", err)
		}
		again, againErr := io.ReadAll(iotest.OneByteReader(NewReader(iotest.OneByteReader(bytes.NewReader(body)), StreamingTrailer, size, nil)))
		if err == nil && !bytes.Equal(data, again) || (err == nil) != (againErr == nil) {
			t.Fatalf("%q %v, byte by byte %q %v", data, err, again, againErr)
		}
		if againErr != nil && size > 0 && int64(len(again)) >= size {
			t.Fatalf("byte by byte all %d bytes, and %v", size, againErr)
		}
	})
}
