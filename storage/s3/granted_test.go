package s3

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"lodge/gateway"
)

// FuzzParseGranted: no request for an own bucket is taken for one by a grant, nor the other way
// round, and what is parsed can be the name of a VM's bucket and of a key.
func FuzzParseGranted(f *testing.F) {
	for _, s := range []string{"/blog_photos/a", "/photos/a", "/_photos/a", "/blog_/a", "/a_b_c/k", "//blog_photos", "/blog_photos", "/blog_photos/../x", "/"} {
		f.Add(s, "")
		f.Add("/k", strings.Trim(s, "/")+"."+gateway.S3Host)
	}
	f.Fuzz(func(t *testing.T, path, host string) {
		r := &http.Request{Host: host, URL: &url.URL{Path: path}}
		vm, target, ok, err := ParseGranted(r)
		_, own := ParseTarget(r)
		if ok && own == nil {
			t.Errorf("%q %q is an own bucket, too", host, path)
		}
		if !ok && (vm != "" || err != nil || target != Target{}) {
			t.Errorf("%q %q: %q %v %v", host, path, vm, target, err)
		}
		if ok && err == nil && (checkBucket(target.Bucket) != nil || target.Key != "" && checkKey(target.Key) != nil || strings.Contains(vm, "_")) {
			t.Errorf("%q %q: %q %+v", host, path, vm, target)
		}
	})
}

// A grant is bound to its bucket, whatever names another one.
func TestGrantIsBound(t *testing.T) {
	c := &call{Caller: Caller{Granted: gateway.WriteBucket}, Target: Target{Bucket: "photos"}}
	if _, err := c.judge("secret"); err == nil {
		t.Error("another bucket of the owner is judged")
	}
}
