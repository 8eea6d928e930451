package storage

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A copy into a granted bucket is refused however its source is named: it would be read in the
// owner's namespace.
func TestGrantedCopyIsRefused(t *testing.T) {
	h := newHost(t)
	g, shop := h.guest("blog"), h.guest("shop")
	g.send(t, "PUT", "/photos/a", "", "x", nil).want(t, "put", 200)
	g.send(t, "PUT", "/secret/db.dump", "", "the owner's secret", nil).want(t, "put", 200)
	g.grant(t, "photos", shop, gateway.WriteBucket)
	c := shop.keyed()
	core := minio.Core{Client: c}
	upload, err := core.NewMultipartUpload(t.Context(), "blog_photos", "big", minio.PutObjectOptions{})
	gatewaytest.Must(t, err)
	for _, source := range []string{"/secret/db.dump", "secret/db.dump", "/photos/a"} {
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
			readReply(t, res).want(t, name+" of "+source, 501, code("NotImplemented"))
		}
	}
	shop.do(t, "GET", "/blog_photos/big", nil).want(t, "the copy", 404)
	mine := g.keyed()
	link, err := mine.Presign(t.Context(), http.MethodPut, "photos", "copy", time.Hour, url.Values{"X-Amz-Copy-Source": {"/secret/db.dump"}})
	gatewaytest.Must(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, link.String(), http.NoBody)
	gatewaytest.Must(t, err)
	res, err := http.DefaultClient.Do(r)
	gatewaytest.Must(t, err)
	readReply(t, res).want(t, "the owner's own copy", 200)
}
