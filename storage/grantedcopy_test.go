package storage

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// copyTo copies by a header, and returns the answer.
func (g guest) copyTo(t *testing.T, to, source string) reply {
	t.Helper()
	return g.do(t, "PUT", to, map[string]string{"X-Amz-Copy-Source": source})
}

// A copy into a granted bucket has its source in the namespace of who copies, however that is named: never in the
// owner's.
func TestGrantedCopySource(t *testing.T) {
	h := newHost(t)
	g, shop := h.guest("blog"), h.guest("shop")
	g.send(t, "PUT", "/photos/a", "", "x", nil).want(t, "put", 200)
	g.send(t, "PUT", "/secret/db.dump", "", "the owner's secret", nil).want(t, "put", 200)
	g.grant(t, "photos", shop, gateway.WriteBucket)
	c := shop.keyed()
	core := minio.Core{Client: c}
	upload, err := core.NewMultipartUpload(t.Context(), "blog_photos", "big", minio.PutObjectOptions{})
	gatewaytest.Must(t, err)
	for source, want := range map[string]int{
		"/secret/db.dump": 404, "secret/db.dump": 404, "/blog_secret/db.dump": 403, "/photos/a": 404, "_photos/a": 403, "blog_/a": 400,
		"blog_photos": 400, "none_photos/a": 403, "blog_photos/../secret/db.dump": 404, "blog_photos%2F..%2Fsecret/db.dump": 404,
	} {
		for name, query := range map[string]url.Values{
			"a copy":              {"X-Amz-Copy-Source": {source}},
			"in lower case":       {"x-amz-copy-source": {source}},
			"of a part":           {"X-Amz-Copy-Source": {source}, "uploadId": {upload}, "partNumber": {"1"}},
			"of a part, by range": {"x-amz-copy-source": {source}, "x-amz-copy-source-range": {"bytes=0-0"}, "uploadId": {upload}, "partNumber": {"1"}},
		} {
			link, err := c.Presign(t.Context(), http.MethodPut, "blog_photos", "big", time.Hour, query)
			gatewaytest.Must(t, err)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, link.String(), http.NoBody)
			gatewaytest.Must(t, err)
			res, err := http.DefaultClient.Do(r)
			gatewaytest.Must(t, err)
			readReply(t, res).want(t, name+" of "+source, want)
		}
		shop.copyTo(t, "/mine/x", strings.Replace(source, "/photos/a", "/none/a", 1)).want(t, "into its own of "+source, want)
	}
	shop.do(t, "GET", "/blog_photos/big", nil).want(t, "the copy", 404)
	g.copyTo(t, "/photos/copy", "/secret/db.dump").want(t, "the owner's own copy", 200)
	g.copyTo(t, "/photos/copy", "/blog_secret/db.dump").want(t, "the owner by another name", 403)
}

// Copies go from a granted bucket and into one, whole and in parts, with metadata, and count for who has them.
func TestGrantedCopy(t *testing.T) {
	h := newHost(t)
	g, shop := h.guest("blog"), h.guest("shop")
	body := strings.Repeat("0123456789", 600_000)
	g.send(t, "PUT", "/photos/a", "", body, map[string]string{"X-Amz-Meta-Name": "value", "X-Amz-Tagging": "k=v"}).want(t, "put", 200)
	g.send(t, "PUT", "/photos/sealed", "", body, map[string]string{"X-Amz-Server-Side-Encryption": "AES256"}).want(t, "put", 200)
	g.send(t, "PUT", "/photos/denied", "", "x", nil).want(t, "put", 200)
	g.doBody(t, "PUT", "/photos?policy", policyOf(`{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/denied"}`)).want(t, "policy", 204)
	shop.send(t, "PUT", "/mine/own", "", "shop's own", nil).want(t, "put", 200)
	shop.copyTo(t, "/mine/a", "/blog_photos/a").want(t, "not granted", 403, code("AccessDenied"))
	g.grant(t, "photos", shop, gateway.ReadBucket)
	for _, key := range []string{"a", "sealed"} {
		shop.copyTo(t, "/mine/"+key, "/blog_photos/"+key).want(t, "read "+key, 200)
		if got := shop.do(t, "GET", "/mine/"+key, nil); got.status != 200 || got.body != body {
			t.Errorf("%s: %d with %d bytes", key, got.status, len(got.body))
		}
	}
	if got := shop.do(t, "GET", "/mine/a", nil); got.header.Get("X-Amz-Meta-Name") != "value" || got.header.Get("X-Amz-Tagging-Count") != "1" {
		t.Errorf("headers %v", got.header)
	}
	shop.copyTo(t, "/mine/denied", "/blog_photos/denied").want(t, "the owner's policy denies", 403)
	shop.copyTo(t, "/blog_photos/own", "/mine/own").want(t, "write by a grant to read", 403)
	h.set(t, g, gateway.Stopped)
	g.grant(t, "photos", shop, gateway.WriteBucket)
	shop.copyTo(t, "/blog_photos/own", "/mine/own").want(t, "write", 200)
	shop.copyTo(t, "/blog_photos/again", "/blog_photos/own").want(t, "within it", 200)
	g.do(t, "GET", "/photos/own", nil).want(t, "the owner reads it", 200, "shop's own")
	g.do(t, "GET", "/photos/again", nil).want(t, "the owner reads it", 200, "shop's own")
	expected := map[string]string{"X-Amz-Copy-Source": "/mine/own", "X-Amz-Source-Expected-Bucket-Owner": shop.ID.String(), "X-Amz-Expected-Bucket-Owner": g.ID.String()}
	shop.do(t, "PUT", "/blog_photos/own", expected).want(t, "the owners that are expected", 200)
	expected["X-Amz-Source-Expected-Bucket-Owner"] = g.ID.String()
	shop.do(t, "PUT", "/blog_photos/own", expected).want(t, "another owner", 403)

	core := minio.Core{Client: shop.keyed()}
	for bucket, source := range map[string]string{"blog_photos": "mine", "mine": "blog_photos"} {
		upload, err := core.NewMultipartUpload(t.Context(), bucket, "parts", minio.PutObjectOptions{})
		gatewaytest.Must(t, err)
		var parts []minio.CompletePart
		for i, key := range []string{"a", "sealed"} {
			part, err := core.CopyObjectPart(t.Context(), source, key, bucket, "parts", upload, i+1, 0, int64(len(body)), nil)
			gatewaytest.Must(t, err)
			parts = append(parts, part)
		}
		_, err = core.CompleteMultipartUpload(t.Context(), bucket, "parts", upload, parts, minio.PutObjectOptions{})
		gatewaytest.Must(t, err)
		if got := shop.do(t, "GET", "/"+bucket+"/parts", nil); got.status != 200 || got.body != body+body {
			t.Errorf("parts in %s: %d with %d bytes", bucket, got.status, len(got.body))
		}
	}
	g.grant(t, "photos", shop, gateway.NoBucketAccess)
	shop.copyTo(t, "/mine/late", "/blog_photos/a").want(t, "taken back", 403)
}

// A copy reads no more of its source than the policy of the source's owner lets a read have: neither tags, nor a version
// that a condition is about.
func TestCopyObeysSourcePolicy(t *testing.T) {
	h := newHost(t)
	g, shop := h.guest("blog"), h.guest("shop")
	c := g.dummy()
	put(t, c, "photos", "plain", []byte("x"))
	gatewaytest.Must(t, c.EnableVersioning(t.Context(), "photos"))
	g.send(t, "PUT", "/photos/a", "", "x", map[string]string{"X-Amz-Tagging": "k=secret"}).want(t, "put", 200)
	version := put(t, c, "photos", "v", []byte("old")).VersionID
	put(t, c, "photos", "v", []byte("new"))
	g.doBody(t, "PUT", "/photos?policy", policyOf(`{"Effect": "Deny", "Principal": "*", "Action": ["s3:GetObjectTagging", "s3:GetObjectVersionTagging"], "Resource": "arn:aws:s3:::photos/*"}`,
		`{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObjectVersion", "Resource": "arn:aws:s3:::photos/*", "Condition": {"StringEquals": {"s3:versionid": "`+version+`"}}}`)).want(t, "policy", 204)
	g.grant(t, "photos", shop, gateway.ReadBucket)
	put(t, shop.dummy(), "mine", "x", nil)
	shop.do(t, "GET", "/blog_photos/a?tagging", nil).want(t, "tags", 403)
	shop.do(t, "GET", "/blog_photos/v?versionId="+version, nil).want(t, "the version", 403)

	shop.copyTo(t, "/mine/a", "/blog_photos/a").want(t, "a copy with tags", 403, code("AccessDenied"))
	shop.do(t, "PUT", "/mine/a", map[string]string{"X-Amz-Copy-Source": "/blog_photos/a", "X-Amz-Tagging-Directive": "REPLACE"}).want(t, "a copy without", 200)
	shop.copyTo(t, "/mine/plain", "/blog_photos/plain").want(t, "an object without tags", 200)
	shop.copyTo(t, "/mine/v", "/blog_photos/v?versionId="+version).want(t, "a copy of the version", 403, code("AccessDenied"))
	shop.copyTo(t, "/mine/v", "/blog_photos/v").want(t, "a copy of the latest", 200)
	up := shop.do(t, "POST", "/mine/big?uploads", nil)
	_, id, _ := strings.Cut(up.body, "<UploadId>")
	id, _, _ = strings.Cut(id, "<")
	shop.copyTo(t, "/mine/big?partNumber=1&uploadId="+id, "/blog_photos/v?versionId="+version).want(t, "a part of the version", 403, code("AccessDenied"))
}
