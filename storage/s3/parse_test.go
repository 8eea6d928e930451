package s3

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"lodge/gateway"
	"lodge/storage/sigv4"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// FuzzTarget: whatever host and path a request has, the bucket's name is one that S3 allows, and the
// key is the rest of the path, decoded once.
func FuzzTarget(f *testing.F) {
	for _, s := range [][2]string{
		{"s3.lodge.internal", "/b/k"},
		{"box.s3.lodge.internal:80", "/k"},
		{"..s3.lodge.internal", "/x"},
		{"h", "/b%2f..%2fc/k"},
		{"h", "//b/k"},
		{"h", "/box/%252e%252e/x"},
		{"h", "/box/a//b/"},
		{"h", "/box/%00"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, host, raw string) {
		u, err := url.ParseRequestURI(raw)
		if err != nil {
			return
		}
		got, err := ParseTarget(&http.Request{Host: host, URL: u})
		if err != nil {
			return
		}
		if got.Bucket != "" && checkBucket(got.Bucket) != nil || got.Bucket == "" && got.Key != "" {
			t.Fatalf("%q %q gives %+v", host, raw, got)
		}
		if len(got.Key) > maxKeyBytes || !utf8.ValidString(got.Key) || strings.Contains(got.Key, "\x00") {
			t.Fatalf("%q %q gives %+v", host, raw, got)
		}
		if strings.Contains(got.Bucket, gateway.S3Host) {
			t.Fatalf("%q gives %+v", host, got)
		}
		again := &url.URL{Path: "/" + got.Bucket + "/" + got.Key, RawPath: "/" + got.Bucket + "/" + sigv4.Escape(got.Key, true)}
		parsed, err := url.ParseRequestURI(again.EscapedPath())
		if err != nil {
			t.Fatal(err)
		}
		if second, err := ParseTarget(&http.Request{Host: "h", URL: parsed}); err != nil || got.Bucket != "" && second != got {
			t.Fatalf("%+v comes back as %+v, %v", got, second, err)
		}
	})
}

func TestTargets(t *testing.T) {
	for path, want := range map[string]Target{
		"/": {}, "/box": {"box", ""}, "/box/": {"box", ""}, "/box/x": {"box", "x"}, "/box/x/": {"box", "x/"}, "/box/x/y": {"box", "x/y"},
		"/box//": {"box", "/"}, "/box/a//b": {"box", "a//b"}, "/box/../x": {"box", "../x"}, "/box/%2e%2e": {"box", ".."},
		"/box/a%2fb": {"box", "a/b"}, "/box/a%252fb": {"box", "a%2fb"}, "/box/%01": {"box", "\x01"}, "/box/+": {"box", "+"},
	} {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseTarget(&http.Request{Host: "s3.lodge.internal", URL: u}); err != nil || got != want {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
}

// FuzzRange: a range lies inside the body.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=-5", "bytes=2-4", "bytes=5-2", "bytes=1-2,4-5", "bytes=--1", "bytes=9999999999999999999-", "lines=1-2", "bytes= 1-2"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		got, ok, err := parseRange(header, size)
		if err == nil && ok && (got.offset < 0 || got.length < 1 || got.offset+got.length > size) {
			t.Fatalf("%q of %d gives %+v", header, size, got)
		}
		part, err := parseCopyRange(header, size)
		if err == nil && (part.offset < 0 || part.length < 0 || part.offset+part.length > size) {
			t.Fatalf("copy of %q of %d gives %+v", header, size, part)
		}
	})
}

func TestRanges(t *testing.T) {
	for header, want := range map[string]span{
		"bytes=0-0": {0, 1}, "bytes=2-4": {2, 3}, "bytes=7-": {7, 3}, "bytes=-2": {8, 2}, "bytes=-100": {0, 10}, "bytes=5-100": {5, 5},
	} {
		if got, ok, err := parseRange(header, 10); !ok || err != nil || got != want {
			t.Errorf("%s: %+v, %v, %v", header, got, ok, err)
		}
	}
	for _, header := range []string{"bytes=10-", "bytes=-0", "bytes=100-200"} {
		if _, _, err := parseRange(header, 10); err == nil {
			t.Errorf("%s is in 10 bytes", header)
		}
	}
	for _, header := range []string{"", "bytes", "bytes=", "bytes=-", "bytes=4-2", "bytes=0-1,3-4", "octets=0-1", "bytes=a-b", "bytes=+1-2"} {
		if _, ok, err := parseRange(header, 10); ok || err != nil {
			t.Errorf("%q is not ignored: %v", header, err)
		}
	}
}

// FuzzXML: what readXML accepts is as deep and as long as its limits, and is what was sent.
func FuzzXML(f *testing.F) {
	for _, s := range []string{"<Delete><Object><Key>k</Key></Object></Delete>", "<a><b><c><d>", "<?xml version='1.0'?><a/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readXML(bytes.NewReader(body), 3)
		if err != nil {
			return
		}
		if !bytes.Equal(got, body) {
			t.Fatal("it is changed")
		}
		var list deleteXML
		if xml.Unmarshal(got, &list) == nil && len(list.Objects) > 3 {
			t.Fatalf("%d objects", len(list.Objects))
		}
	})
}

// FuzzSource: the source of a copy has a bucket's name that S3 allows, in the VM's own namespace.
func FuzzSource(f *testing.F) {
	for _, s := range []string{"box/k", "/box/k?versionId=3", "box/%2e%2e/k", "../x/k", "box%2fk", "//box/k", "box/k?versionId=a?versionId=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := &http.Request{Header: http.Header{"X-Amz-Copy-Source": {header}}}
		c := &call{Caller: Caller{VM: gateway.Identity{ID: gateway.ID{1}}}, r: r}
		got, err := parseSource(header)
		if err != nil {
			return
		}
		_, err = c.findSource()
		if err == nil && (checkBucket(c.from.Bucket) != nil || checkKey(got.key.Name) != nil || c.from.VM != c.VM) {
			t.Fatalf("%q gives %+v and %+v", header, got, c.from)
		}
	})
}

// FuzzTags: tags that are accepted are within S3's limits.
func FuzzTags(f *testing.F) {
	for _, s := range []string{"a=b", "a=b&a=c", "a%20b=c%2Bd", "=x", "aws:a=b", strings.Repeat("x=y&", 11)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		tags, err := tagsOf(header)
		if err != nil {
			return
		}
		for name, value := range tags {
			if name == "" || utf8.RuneCountInString(name) > maxTagName || utf8.RuneCountInString(value) > maxTagValue {
				t.Fatalf("%q gives %q=%q", header, name, value)
			}
		}
		if len(tags) > maxTags {
			t.Fatalf("%d tags", len(tags))
		}
	})
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func formRequest(body string) *http.Request {
	r, _ := http.NewRequest(http.MethodPost, "http://h/box", strings.NewReader(body)) //nolint:noctx // it is never sent
	r.Header.Set("Content-Type", "multipart/form-data; boundary=x")
	return r
}
