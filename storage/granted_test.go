package storage

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// grant lets another VM use a bucket of g's.
func (g guest) grant(t *testing.T, bucket string, to guest, access gateway.BucketAccess) {
	t.Helper()
	g.setS3(t, func(s *gateway.S3Settings) {
		*s = s.WithGrant(gateway.BucketGrant{Bucket: bucket, To: to.ID, Access: access})
	})
}

// A bucket that is granted is at the other VM's tap under a name that no own bucket can have, and
// only there.
func TestGranted(t *testing.T) {
	h := newHost(t)
	g, shop, other := h.guest("blog"), h.guest("shop"), h.guest("other")
	g.send(t, "PUT", "/photos/a", "", "x", nil).want(t, "put", 200)
	g.send(t, "PUT", "/secret/a", "", "x", nil).want(t, "put", 200)
	g.doBody(t, "PUT", "/photos?policy", policyOf(`{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::photos/denied"}`)).want(t, "policy", 204)
	g.send(t, "PUT", "/photos/denied", "", "x", nil).want(t, "put", 200)
	shop.send(t, "PUT", "/photos/a", "", "shop's own", nil).want(t, "its own bucket of the name", 200)
	shop.do(t, "PUT", "/blog_photos", nil).want(t, "an own bucket of that name", 403)
	none := shop.do(t, "GET", "/none_photos/a", nil)
	if got := shop.do(t, "GET", "/blog_photos/a", nil); got.status != 403 || got.shape() != none.shape() {
		t.Errorf("before: %s, want %s", got.shape(), none.shape())
	}
	g.grant(t, "photos", shop, gateway.ReadBucket)
	shop.do(t, "GET", "/blog_photos/a", nil).want(t, "read", 200)
	shop.doHost(t, "GET", "/a", "blog_photos.s3.lodge.internal").want(t, "read by name", 200)
	shop.do(t, "HEAD", "/blog_photos", nil).want(t, "head", 200)
	shop.do(t, "GET", "/blog_photos?list-type=2", nil).want(t, "list", 200, "<Key>a</Key>")
	shop.do(t, "GET", "/blog_photos/denied", nil).want(t, "the policy denies", 403)
	shop.do(t, "GET", "/blog_secret/a", nil).want(t, "another bucket", 403)
	shop.do(t, "GET", "/blog_photos/../../secret/a", nil).want(t, "an odd key", 404)
	shop.do(t, "GET", "/blog_photos/%00", nil).want(t, "a NUL", 400)
	shop.do(t, "GET", "/blog_photos/"+strings.Repeat("x", 10_000), nil).want(t, "a long key", 400)
	other.do(t, "GET", "/blog_photos/a", nil).want(t, "another VM", 403)
	for _, path := range []string{"PUT /blog_photos/b", "DELETE /blog_photos/a", "POST /blog_photos/b?uploads", "PUT /blog_photos/a?tagging", "DELETE /blog_photos/a?versionId=null"} {
		method, path, _ := strings.Cut(path, " ")
		shop.do(t, method, path, nil).want(t, method+" "+path, 403)
	}
	del := "<Delete><Object><Key>a</Key></Object></Delete>"
	shop.doBody(t, "POST", "/blog_photos?delete", del).want(t, "delete several", 200, "<Code>AccessDenied</Code>")
	for where, c := range map[string]guest{"the host's socket": {Identity: shop.Identity, host: h, url: h.hostDoor()}, "another tap": {Identity: shop.Identity, host: h, url: other.url}} {
		if _, err := c.keyed().StatObject(t.Context(), "blog_photos", "a", getOptions()); err == nil {
			t.Errorf("by a key of the VM at %s", where)
		}
	}
	o := h.outside(noVM())
	o.send(t, "GET", "http://shop.s3.lodge.localhost/blog_photos/a", signed(t, shop.forOutside(t))).want(t, "outside", 400)
	o.ask(t, "GET", "blog_photos.shop.s3", "/a").want(t, "outside, unsigned", 403)
	if got := shop.do(t, "GET", "/photos/a", nil); got.body != "shop's own" {
		t.Errorf("its own: %s", got.body)
	}
}

// A grant to write writes objects, for the quota of the bucket's VM, and changes nothing else.
func TestGrantedToWrite(t *testing.T) {
	h := newHost(t)
	g, shop := h.guest("blog"), h.guest("shop")
	for _, path := range []string{"/photos/a", "/photos/b", "/secret/a"} {
		g.send(t, "PUT", path, "", "x", nil).want(t, path, 200)
	}
	g.grant(t, "photos", shop, gateway.WriteBucket)
	g.grant(t, "new", shop, gateway.WriteBucket)
	shop.send(t, "PUT", "/blog_photos/c", "", "of shop", nil).want(t, "write", 200)
	if got := g.do(t, "GET", "/photos/c", nil); got.body != "of shop" {
		t.Errorf("the owner reads %s", got.body)
	}
	shop.do(t, "DELETE", "/blog_photos/a", nil).want(t, "delete", 204)
	shop.doBody(t, "POST", "/blog_photos?delete", "<Delete><Object><Key>b</Key></Object></Delete>").want(t, "delete several", 200, "<Deleted>")
	c := shop.dummy()
	big := random(17 << 20)
	put(t, c, "blog_photos", "big", big)
	if got := get(t, c, "blog_photos", "big"); string(got) != string(big) {
		t.Error("in parts: another object")
	}
	shop.send(t, "PUT", "/blog_new/k", "", "x", nil).want(t, "a bucket that does not exist", 404, code("NoSuchBucket"))
	for _, path := range []string{
		"PUT /blog_photos", "DELETE /blog_photos", "GET /blog_photos?policy", "DELETE /blog_photos?policy", "PUT /blog_photos?policy", "PUT /blog_photos?acl", "PUT /blog_photos?versioning",
		"PUT /blog_photos?website", "DELETE /blog_photos/c?versionId=null", "PUT /blog_photos/c?retention", "PUT /blog_photos/c?acl", "DELETE /blog_photos?lifecycle", "GET /blog_photos?cors",
	} {
		method, path, _ := strings.Cut(path, " ")
		shop.do(t, method, path, nil).want(t, method+" "+path, 403)
	}
	g.setS3(t, func(s *gateway.S3Settings) { s.QuotaBytes = 18 << 20 })
	shop.send(t, "PUT", "/blog_photos/more", "", strings.Repeat("x", 2<<20), nil).want(t, "above the owner's quota", 507, code("QuotaExceeded"))
	u, _, err := h.Usage(t.Context(), shop.ID)
	gatewaytest.Must(t, err)
	if u.Bytes != 0 {
		t.Errorf("the other VM has stored %d bytes", u.Bytes)
	}
}

// A grant ends at once, what is under way too: when it is taken back or changed, and when the
// bucket's VM is removed.
func TestGrantEnds(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, g, shop guest){
		"taken back": func(t *testing.T, g, shop guest) {
			t.Helper()
			g.grant(t, "photos", shop, gateway.NoBucketAccess)
		},
		"changed": func(t *testing.T, g, shop guest) {
			t.Helper()
			g.grant(t, "photos", shop, gateway.ReadBucket)
		},
		"the owner removed": func(t *testing.T, g, _ guest) {
			t.Helper()
			g.markRemoved(t)
			gatewaytest.Must(t, g.host.Remove(t.Context(), g.ID))
		},
		"the other removed": func(t *testing.T, _, shop guest) {
			t.Helper()
			shop.markRemoved(t)
			gatewaytest.Must(t, shop.host.Remove(t.Context(), shop.ID))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			g, shop := h.guest("blog"), h.guest("shop")
			g.send(t, "PUT", "/photos/a", "", "x", nil).want(t, "put", 200)
			g.grant(t, "photos", shop, gateway.WriteBucket)
			w := shop.halfWrite(t, "/blog_photos/half")
			end(t, g, shop)
			res, err := http.ReadResponse(w.from, nil) // the server ends the connection, with an answer or without
			if err == nil {
				_ = res.Body.Close() // its status counts
			}
			if err == nil && res.StatusCode < 400 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("a write under way: %v, %v", res, err)
			}
			shop.send(t, http.MethodPut, "/blog_photos/b", "", "x", nil).want(t, "afterwards", 403)
			if m, ok := h.directory.ByID(g.ID); ok && m.Desired != gateway.Removed {
				g.do(t, "GET", "/photos/half", nil).want(t, "the half", 404)
			}
			h.grantees.mu.Lock()
			defer h.grantees.mu.Unlock()
			if len(h.grantees.all) != 0 {
				t.Errorf("%d requests are left", len(h.grantees.all))
			}
		})
	}
}

// Unmodified tools use a granted bucket by its name.
func TestToolsWithGranted(t *testing.T) {
	h := newHost(t)
	g, shop := h.guest("blog"), h.guest("shop")
	g.send(t, "PUT", "/photos/dir/a", "", "x", nil).want(t, "put", 200)
	g.grant(t, "photos", shop, gateway.WriteBucket)
	for tool, script := range map[string]string{
		"aws-cli": `
			aws s3 ls s3://blog_photos/dir/ | grep ' a$' > /dev/null
			mkdir tree && head -c 9000000 /dev/urandom > tree/big && touch tree/empty
			aws s3 sync tree s3://blog_photos/tree --only-show-errors
			aws s3 sync s3://blog_photos/tree back --only-show-errors && diff -r tree back
			aws s3 rm s3://blog_photos/tree --recursive --only-show-errors`,
		"rclone": `
			mkdir tree && head -c 9000000 /dev/urandom > tree/big && echo x > tree/y
			rclone sync tree s3:blog_photos/rclone && rclone check tree s3:blog_photos/rclone
			rclone delete s3:blog_photos/rclone`,
		"s3cmd": `
			echo x > f && s3cmd -q put f s3://blog_photos/s3cmd/f && s3cmd -q get s3://blog_photos/s3cmd/f g && cmp f g && s3cmd -q del s3://blog_photos/s3cmd/f`,
	} {
		t.Run(tool, func(t *testing.T) { shop.shell(t, "dummy", "dummysecret", script) })
	}
}
