package s3

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"testing"
)

// The x-amz-* parameters of a presigned URL are headers, but for those of the signature and of the body.
func TestUnpresigned(t *testing.T) {
	for name, c := range map[string]struct {
		query        string
		header, want http.Header // want nil: it is refused
	}{
		"parameters": {
			"x-amz-acl=private&X-Amz-Meta-A=b&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&versionId=1",
			http.Header{"Range": {"bytes=0-1"}},
			http.Header{"X-Amz-Acl": {"private"}, "X-Amz-Meta-A": {"b"}, "X-Amz-Content-Sha256": {"UNSIGNED-PAYLOAD"}, "Range": {"bytes=0-1"}},
		},
		"of the signature": {"X-Amz-Algorithm=a&X-Amz-Credential=a&X-Amz-Date=a&X-Amz-Expires=1&X-Amz-SignedHeaders=host&X-Amz-Security-Token=a", http.Header{}, http.Header{}},
		"of the body":      {"x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32&x-amz-checksum-mode=ENABLED", http.Header{}, http.Header{"X-Amz-Checksum-Mode": {"ENABLED"}}},
		"the same twice":   {"x-amz-meta-a=b", http.Header{"X-Amz-Meta-A": {"b"}}, http.Header{"X-Amz-Meta-A": {"b"}}},
		"conflict":         {"x-amz-meta-a=b", http.Header{"X-Amz-Meta-A": {"c"}}, nil},
		"other spelling":   {"x-amz-meta-a=b&X-Amz-Meta-A=c", http.Header{}, nil},
		"other payload":    {"X-Amz-Content-Sha256=UNSIGNED-PAYLOAD", http.Header{"X-Amz-Content-Sha256": {"00"}}, nil},
		"line":             {"x-amz-meta-a=b%0d%0aSet-Cookie:c", http.Header{}, nil},
		"a key":            {"x-amz-server-side-encryption-customer-Key=k", http.Header{}, nil},
		"a source's key":   {"X-Amz-Copy-Source-Server-Side-Encryption-Customer-Key-Md5=k", http.Header{}, nil},
		"no name":          {"x-amz-meta-a%20b=c", http.Header{}, nil},
	} {
		for _, presigned := range []bool{false, true} {
			want := c.header
			query, err := url.ParseQuery(c.query)
			if err != nil {
				t.Fatal(err)
			}
			if presigned {
				query.Set("X-Amz-Signature", "s")
				want = c.want
			}
			r := &http.Request{Header: c.header.Clone()}
			got, err := unpresigned(r, query)
			if (err == nil) != (want != nil) {
				t.Errorf("%s: %v", name, err)
			}
			if err == nil && !sameHeader(got.Header, want) {
				t.Errorf("%s: %v instead of %v", name, got.Header, want)
			}
			if !sameHeader(r.Header, c.header) {
				t.Errorf("%s: the request has changed: %v", name, r.Header)
			}
		}
	}
}

func sameHeader(a, b http.Header) bool {
	return maps.EqualFunc(a, b, slices.Equal[[]string])
}
