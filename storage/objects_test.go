package storage

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"lodge/gateway/gatewaytest"
)

// want fails unless the answer has the status and the texts.
func (r reply) want(t *testing.T, what string, status int, texts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("%s: %d %s", what, r.status, r.body)
	}
	for _, text := range texts {
		if !strings.Contains(r.body, text) {
			t.Errorf("%s: no %q in %s", what, text, r.body)
		}
	}
}

func code(name string) string { return "<Code>" + name + "</Code>" }

// TestReads is what GET and HEAD have beside the body.
func TestReads(t *testing.T) {
	g := newHost(t).guest("blog")
	g.send(t, "PUT", "/box/k", "", "0123456789", map[string]string{
		"Content-Type": "text/plain", "Cache-Control": "no-cache", "X-Amz-Meta-Name": "value", "X-Amz-Storage-Class": "STANDARD_IA",
		"X-Amz-Checksum-Crc32": base64CRC32("0123456789"), "Content-Encoding": "aws-chunked,br", "X-Amz-Website-Redirect-Location": "/other",
	}).want(t, "put", 200)
	for _, method := range []string{"GET", "HEAD"} {
		got := g.do(t, method, "/box/k", map[string]string{"X-Amz-Checksum-Mode": "ENABLED"})
		got.want(t, method, 200)
		for name, want := range map[string]string{
			"Content-Type": "text/plain", "Cache-Control": "no-cache", "Content-Encoding": "br", "Content-Length": "10",
			"Accept-Ranges": "bytes", "X-Amz-Meta-Name": "value", "X-Amz-Storage-Class": "STANDARD_IA",
			"X-Amz-Checksum-Crc32": base64CRC32("0123456789"), "X-Amz-Checksum-Type": "FULL_OBJECT", "X-Amz-Website-Redirect-Location": "/other",
		} {
			if v := got.header.Get(name); v != want {
				t.Errorf("%s: %s is %q", method, name, v)
			}
		}
	}
	for query, want := range map[string][2]string{
		"response-content-type=a%2Fb": {"Content-Type", "a/b"}, "response-cache-control=x": {"Cache-Control", "x"},
		"response-content-disposition=attachment": {"Content-Disposition", "attachment"}, "response-expires=never": {"Expires", "never"},
		"response-content-language=de": {"Content-Language", "de"}, "response-content-encoding=x": {"Content-Encoding", "x"},
	} {
		if got := g.do(t, "GET", "/box/k?"+query, nil); got.header.Get(want[0]) != want[1] {
			t.Errorf("%s: %v", query, got.header)
		}
	}
	old, later := "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
	for _, c := range []struct {
		header map[string]string
		status int
	}{
		{map[string]string{"If-Match": "*"}, 200},
		{map[string]string{"If-Match": `"x", "781e5e245d69b566979b86e28d23f2c7"`}, 200},
		{map[string]string{"If-Match": `"x"`}, 412},
		{map[string]string{"If-Unmodified-Since": old}, 412},
		{map[string]string{"If-Unmodified-Since": later}, 200},
		{map[string]string{"If-Match": "*", "If-Unmodified-Since": old}, 200},
		{map[string]string{"If-Modified-Since": later}, 304},
		{map[string]string{"If-Modified-Since": old}, 200},
		{map[string]string{"If-None-Match": `"x"`, "If-Modified-Since": later}, 200},
		{map[string]string{"If-None-Match": "*"}, 304},
		{map[string]string{"Range": "bytes=0-1", "If-Range": `"x"`}, 200},
		{map[string]string{"Range": "bytes=0-1", "If-Range": `"781e5e245d69b566979b86e28d23f2c7"`}, 206},
		{map[string]string{"Range": "bytes=0-1,3-4"}, 200},
		{map[string]string{"Range": "bytes=20-"}, 416},
	} {
		if got := g.do(t, "GET", "/box/k", c.header); got.status != c.status {
			t.Errorf("%v: %d %s", c.header, got.status, got.body)
		}
	}
	g.do(t, "GET", "/box/k?partNumber=1", nil).want(t, "part 1 of a plain object", 206, "0123456789")
	g.do(t, "GET", "/box/k?partNumber=2", nil).want(t, "part 2 of a plain object", 416, code("InvalidPartNumber"))
	g.do(t, "PUT", "/box/k?partNumber=2", nil).want(t, "a part without an upload", 400, code("InvalidArgument"))
	g.send(t, "PUT", "/box/k", "", "x", map[string]string{"X-Amz-Meta-Large": strings.Repeat("x", 2048)}).want(t, "metadata", 400, code("MetadataTooLarge"))
	g.send(t, "PUT", "/box/k", "", "x", map[string]string{"X-Amz-Storage-Class": "DEEP_ARCHIVE"}).want(t, "class", 400, code("InvalidStorageClass"))
}

// TestParts reads an object that was uploaded in parts, of which one is small enough for the index.
func TestParts(t *testing.T) {
	t.Parallel()
	g := newHost(t).guest("blog")
	core := minioCore(g)
	data := random(10<<20 + 100)
	begun := g.do(t, "POST", "/box/k?uploads", map[string]string{"X-Amz-Checksum-Algorithm": "CRC32", "X-Amz-Checksum-Type": "FULL_OBJECT"})
	begun.want(t, "begin", 200)
	_, rest, _ := strings.Cut(begun.body, "<UploadId>")
	id, _, _ := strings.Cut(rest, "</UploadId>")
	var list strings.Builder
	for i, part := range [][]byte{data[:5<<20], data[5<<20 : 10<<20], data[10<<20:]} {
		put := g.send(t, "PUT", fmt.Sprintf("/box/k?partNumber=%d&uploadId=%s", i+1, id), "", string(part), nil)
		put.want(t, "part", 200)
		if put.header.Get("X-Amz-Checksum-Crc32") == "" || put.header.Get("X-Amz-Checksum-Type") != "" {
			t.Errorf("part: %v", put.header)
		}
		fmt.Fprintf(&list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, put.header.Get("Etag"))
	}
	g.do(t, "GET", "/box/k?max-parts=2&uploadId="+id, nil).want(t, "list", 200, "<IsTruncated>true</IsTruncated>", "<NextPartNumberMarker>2</NextPartNumberMarker>", "<ChecksumType>FULL_OBJECT</ChecksumType>")
	g.do(t, "GET", "/box?uploads&prefix=k&delimiter=/", nil).want(t, "uploads", 200, "<UploadId>"+id, "<Delimiter>/</Delimiter>", "<KeyMarker></KeyMarker>")
	g.send(t, "PUT", "/box/k?partNumber=1&uploadId="+id, "", "x", map[string]string{"X-Amz-Checksum-Sha1": "98O8HYCOBHMq32eZZczDTKeuNEE="}).want(t, "other algorithm", 400, code("InvalidRequest"))
	done := "<CompleteMultipartUpload>" + list.String() + "</CompleteMultipartUpload>"
	g.send(t, "POST", "/box/k?uploadId="+id, "", done, map[string]string{"X-Amz-Checksum-Crc32": base64CRC32("other")}).want(t, "wrong checksum", 400, code("BadDigest"))
	g.send(t, "POST", "/box/k?uploadId="+id, "", done, map[string]string{"X-Amz-Checksum-Sha1": "98O8HYCOBHMq32eZZczDTKeuNEE="}).want(t, "checksum of another kind", 400, code("InvalidRequest"))
	g.send(t, "POST", "/box/k?uploadId="+id, "", done, map[string]string{"X-Amz-Mp-Object-Size": "5"}).want(t, "wrong size", 400)
	g.send(t, "POST", "/box/k?uploadId="+id, "", done, map[string]string{"X-Amz-Checksum-Crc32": base64CRC32(string(data)), "X-Amz-Checksum-Type": "FULL_OBJECT"}).
		want(t, "complete", 200, "<ChecksumCRC32>"+base64CRC32(string(data)), "<ChecksumType>FULL_OBJECT", "<Location>"+g.url+"/box/k</Location>")
	if got := get(t, core.Client, "box", "k"); !bytes.Equal(got, data) {
		t.Fatal("other bytes")
	}
	for span, want := range map[string][]byte{
		"bytes=0-9": data[:10], "bytes=5242870-5242889": data[5242870:5242890], fmt.Sprintf("bytes=%d-", 10<<20-5): data[10<<20-5:], "bytes=-7": data[len(data)-7:],
	} {
		if got := g.do(t, "GET", "/box/k", map[string]string{"Range": span}); got.status != 206 || got.body != string(want) {
			t.Errorf("%s: %d, %d bytes", span, got.status, len(got.body))
		}
	}
	part := g.do(t, "GET", "/box/k?partNumber=3", map[string]string{"X-Amz-Checksum-Mode": "ENABLED"})
	if part.status != 206 || part.body != string(data[10<<20:]) || part.header.Get("X-Amz-Mp-Parts-Count") != "3" || part.header.Get("X-Amz-Checksum-Crc32") != base64CRC32(part.body) {
		t.Errorf("part 3: %d, %d bytes, %v", part.status, len(part.body), part.header)
	}
	g.do(t, "GET", "/box/k?attributes", map[string]string{"X-Amz-Object-Attributes": "ETag,Checksum,ObjectParts,StorageClass,ObjectSize", "X-Amz-Max-Parts": "2"}).
		want(t, "attributes", 200, "<ObjectSize>10485860", "<PartsCount>3</PartsCount>", "<IsTruncated>true", "<StorageClass>STANDARD", "<ChecksumType>FULL_OBJECT")
	g.do(t, "GET", "/box/k?attributes", map[string]string{"X-Amz-Object-Attributes": "Nonsense"}).want(t, "no attribute", 400, code("InvalidArgument"))
	g.do(t, "GET", "/box/k?attributes", map[string]string{"X-Amz-Object-Attributes": "ObjectParts, ObjectParts"}).want(t, "an attribute twice", 400, code("InvalidArgument"))
	copied := g.do(t, "PUT", "/box/copy", map[string]string{"X-Amz-Copy-Source": "box/k"})
	copied.want(t, "copy", 200, "<CopyObjectResult")
	if got := get(t, core.Client, "box", "copy"); !bytes.Equal(got, data) {
		t.Error("copy: other bytes")
	}
	g.do(t, "PUT", "/box/copy", map[string]string{"X-Amz-Copy-Source": "box/k", "X-Amz-Checksum-Algorithm": "SHA256"}).want(t, "copy with a checksum", 200, "<ChecksumSHA256>")
}

// TestCopiedParts: a part that is copied into an upload has the checksum that the upload announces.
func TestCopiedParts(t *testing.T) {
	g := newHost(t).guest("blog")
	core := minioCore(g)
	data := random(6 << 20)
	put(t, core.Client, "box", "src", data)
	id, err := core.NewMultipartUpload(t.Context(), "box", "k", minio.PutObjectOptions{UserMetadata: map[string]string{"X-Amz-Checksum-Algorithm": "CRC32C"}})
	gatewaytest.Must(t, err)
	path := "/box/k?partNumber=1&uploadId=" + id
	for span, want := range map[string]string{"bytes=0-6291456": "InvalidArgument", "bytes=5-": "InvalidArgument", "bytes=5-2": "InvalidArgument", "0-5": "InvalidArgument"} {
		g.do(t, "PUT", path, map[string]string{"X-Amz-Copy-Source": "/box/src", "X-Amz-Copy-Source-Range": span}).want(t, span, 400, code(want))
	}
	g.do(t, "PUT", path, map[string]string{"X-Amz-Copy-Source": "/box/src", "X-Amz-Copy-Source-If-None-Match": "*"}).want(t, "condition", 412)
	got := g.do(t, "PUT", path, map[string]string{"X-Amz-Copy-Source": "/box/src", "X-Amz-Copy-Source-Range": "bytes=1-6291455"})
	got.want(t, "copy", 200, "<CopyPartResult", "<ChecksumCRC32C>")
	_, rest, _ := strings.Cut(got.body, "<ETag>")
	etag, _, _ := strings.Cut(rest, "</ETag>")
	g.doBody(t, "POST", "/box/k?uploadId="+id, "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"+etag+"</ETag></Part></CompleteMultipartUpload>").
		want(t, "complete", 200, "<ChecksumCRC32C>", "-1</ChecksumCRC32C>", "COMPOSITE")
	if got := get(t, core.Client, "box", "k"); !bytes.Equal(got, data[1:]) {
		t.Error("other bytes")
	}
}

// TestCopies is what the directives of a copy mean.
func TestCopies(t *testing.T) {
	g := newHost(t).guest("blog")
	g.send(t, "PUT", "/box/src", "", "x", map[string]string{"X-Amz-Meta-A": "1", "X-Amz-Tagging": "t=1", "Content-Type": "a/b", "X-Amz-Storage-Class": "STANDARD_IA"}).want(t, "put", 200)
	for name, c := range map[string]struct {
		header            map[string]string
		meta, kind, count string
	}{
		"copy":         {nil, "1", "a/b", "1"},
		"replace":      {map[string]string{"X-Amz-Metadata-Directive": "REPLACE", "X-Amz-Meta-A": "2"}, "2", "binary/octet-stream", "1"},
		"replace tags": {map[string]string{"X-Amz-Tagging-Directive": "REPLACE", "X-Amz-Tagging": "a=1&b=2"}, "1", "a/b", "2"},
	} {
		header := map[string]string{"X-Amz-Copy-Source": "box/src"}
		maps.Copy(header, c.header)
		g.do(t, "PUT", "/box/dst", header).want(t, name, 200)
		got := g.do(t, "GET", "/box/dst", nil)
		if got.body != "x" || got.header.Get("X-Amz-Meta-A") != c.meta || got.header.Get("Content-Type") != c.kind || got.header.Get("X-Amz-Tagging-Count") != c.count || got.header.Get("X-Amz-Storage-Class") != "" {
			t.Errorf("%s: %v", name, got.header)
		}
	}
	g.do(t, "PUT", "/box/src", map[string]string{"X-Amz-Copy-Source": "box/src"}).want(t, "onto itself", 400, code("InvalidRequest"))
	g.do(t, "PUT", "/box/dst", map[string]string{"X-Amz-Copy-Source": "box/none"}).want(t, "no source", 404, code("NoSuchKey"))
	g.do(t, "PUT", "/box/dst", map[string]string{"X-Amz-Copy-Source": "box/src", "If-None-Match": "*"}).want(t, "condition of the destination", 412)
}

// TestDeletes deletes by conditions, and many at once.
func TestDeletes(t *testing.T) {
	g := newHost(t).guest("blog")
	c := g.dummy()
	put(t, c, "box", "k", []byte("x"))
	g.do(t, "DELETE", "/box/k", map[string]string{"If-Match": `"0"`}).want(t, "other ETag", 412)
	for _, empty := range []string{"", `""`, " "} {
		for _, method := range []string{"DELETE", "PUT"} {
			g.do(t, method, "/box/k", map[string]string{"If-Match": empty}).want(t, method+" with an empty ETag", 412)
		}
	}
	for _, empty := range []string{"<ETag/>", `<ETag>""</ETag>`} {
		g.doBody(t, "POST", "/box?delete", "<Delete><Object><Key>k</Key>"+empty+"</Object></Delete>").want(t, empty, 200, "<Code>PreconditionFailed</Code>")
	}
	if got := get(t, c, "box", "k"); string(got) != "x" {
		t.Errorf("an empty ETag did something: %q", got)
	}
	g.do(t, "DELETE", "/box/k", map[string]string{"If-Match": "*"}).want(t, "any ETag", 204)
	g.do(t, "DELETE", "/box/k", nil).want(t, "again", 204)
	g.do(t, "DELETE", "/none/k", nil).want(t, "no bucket", 404, code("NoSuchBucket"))
	var list strings.Builder
	for i := range 1000 {
		if i%2 == 0 {
			put(t, c, "box", fmt.Sprint("n/", i), nil)
		}
		fmt.Fprintf(&list, "<Object><Key>n/%d</Key></Object>", i)
	}
	body := "<Delete><Quiet>true</Quiet>" + list.String() + "</Delete>"
	if got := g.doBody(t, "POST", "/box?delete", body); got.status != 200 || strings.Contains(got.body, "<Deleted>") || strings.Contains(got.body, "<Error>") {
		t.Errorf("delete many: %d %.300s", got.status, got.body)
	}
	g.doBody(t, "POST", "/box?delete", "<Delete><Object><Key>none</Key></Object></Delete>").want(t, "not quiet", 200, "<Deleted><Key>none</Key></Deleted>")
	if got := g.do(t, "GET", "/box?list-type=2", nil); !strings.Contains(got.body, "<KeyCount>0<") {
		t.Errorf("left: %s", got.body)
	}
}
