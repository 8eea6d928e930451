package storage

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/storage/sigv4"
)

const outsideName = "s3.lodge.localhost"

// outside is a client's view of the public names.
type outside struct {
	http *http.Client
}

// outside serves at a port, which all names lead to; the connections are vm's, which means nothing there.
func (h *host) outside(vm gateway.Identity) outside {
	addr := strings.TrimPrefix(h.serve(h.OutsideHandler(), vm), "http://")
	return outside{&http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}}}}
}

func (o outside) client(t *testing.T, keys gateway.Credentials) *minio.Client {
	t.Helper()
	c, err := minio.New(outsideName, &minio.Options{
		Creds: staticCredentials(keys.AccessKey, keys.SecretKey), Region: gateway.S3Region, BucketLookup: minio.BucketLookupPath,
		MaxRetries: 1, Transport: o.http.Transport,
	})
	gatewaytest.Must(t, err)
	return c
}

// send sends a request, which sign may change first.
func (o outside) send(t *testing.T, method, address string, sign func(*http.Request)) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, http.NoBody)
	gatewaytest.Must(t, err)
	if sign != nil {
		sign(r)
	}
	res, err := o.http.Do(r)
	gatewaytest.Must(t, err)
	return readReply(t, res)
}

// signed signs a request with keys.
func signed(t *testing.T, keys gateway.Credentials) func(*http.Request) {
	t.Helper()
	return func(r *http.Request) {
		t.Helper()
		r.Header.Set("X-Amz-Content-Sha256", sigv4.Unsigned)
		gatewaytest.Must(t, sigv4.Sign(r, keys.AccessKey, keys.SecretKey, gateway.S3Region, time.Now()))
	}
}

// forOutside makes credentials of the host's owner.
func (g guest) forOutside(t *testing.T) gateway.Credentials {
	t.Helper()
	c, err := g.host.keyring.IssueOutside(g.ID, g.host.people.Owner().ID, time.Hour, time.Now())
	gatewaytest.Must(t, err)
	return c
}

// Credentials for outside work at all of the VM's public names, whether it runs or not.
func TestOutside(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	o, keys := h.outside(noVM()), g.forOutside(t)
	_, err := h.directory.Update(t.Context(), g.ID, func(m *gateway.VM) error { m.Desired = gateway.Stopped; return nil })
	gatewaytest.Must(t, err)
	c := o.client(t, keys)
	put(t, c, "photos", "a//../ü+&", []byte("x"))
	if got := get(t, c, "photos", "a//../ü+&"); string(got) != "x" {
		t.Errorf("got %q", got)
	}
	if got := get(t, g.dummy(), "photos", "a//../ü+&"); string(got) != "x" {
		t.Errorf("the VM got %q", got)
	}
	put(t, c, "my.photos", "k", []byte("y"))
	for name, path := range map[string]string{
		"s3": "/my.photos/k", "blog.s3": "/my.photos/k", "my.photos.blog.s3": "/k", "MY.photos.Blog.S3": "/k",
	} {
		got := o.send(t, http.MethodGet, "http://"+name+".lodge.localhost"+path, signed(t, keys))
		if got.status != 200 || got.body != "y" || got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %s %v", name, got.status, got.body, got.header)
		}
	}
	if _, err := c.ListBuckets(t.Context()); err != nil {
		t.Error(err)
	}
	forwarded := func(r *http.Request) { // the web server's proxies add it, before or after it is signed
		signed(t, keys)(r)
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
	}
	o.send(t, http.MethodGet, "http://s3.lodge.localhost/my.photos/k", forwarded).want(t, "through a proxy", 200)
}

// Whoever has no key for outside gets nothing there, and who has one gets nothing of another VM.
func TestStrangersOutside(t *testing.T) {
	h := newHost(t)
	g, shop := h.guest("blog"), h.guest("shop")
	put(t, g.dummy(), "photos", "k", []byte("of blog"))
	put(t, shop.dummy(), "wares", "k", []byte("of shop"))
	core := minio.Core{Client: shop.dummy()}
	upload, err := core.NewMultipartUpload(t.Context(), "wares", "big", minio.PutObjectOptions{})
	gatewaytest.Must(t, err)
	keys, own := g.forOutside(t), g.minted()
	expired, err := h.keyring.IssueOutside(g.ID, h.people.Owner().ID, time.Minute, time.Now().Add(-time.Hour))
	gatewaytest.Must(t, err)
	nobodys, err := h.keyring.IssueOutside(g.ID, 12345, time.Hour, time.Now())
	gatewaytest.Must(t, err)
	const at = "http://s3.lodge.localhost"
	for name, c := range map[string]struct {
		method, url string
		sign        func(*http.Request)
		status      int
		code        string
	}{
		"anonymous":             {"GET", at + "/photos/k", nil, 403, "AccessDenied"},
		"anonymous, list":       {"GET", at + "/", nil, 403, "AccessDenied"},
		"anonymous, own name":   {"GET", "http://photos.blog.s3.lodge.localhost/k", nil, 403, "AccessDenied"},
		"anonymous, no VM":      {"GET", "http://photos.none.s3.lodge.localhost/k", nil, 403, "AccessDenied"},
		"dummy key":             {"GET", at + "/photos/k", signed(t, gateway.Credentials{AccessKey: "x", SecretKey: "y"}), 403, "InvalidAccessKeyId"},
		"version 2":             {"GET", at + "/photos/k", func(r *http.Request) { r.Header.Set("Authorization", "AWS "+keys.AccessKey+":y") }, 400, "InvalidRequest"},
		"version 2, URL":        {"GET", at + "/photos/k?AWSAccessKeyId=" + keys.AccessKey + "&Signature=y&Expires=9999999999", nil, 400, "InvalidRequest"},
		"wrong secret":          {"GET", at + "/photos/k", signed(t, gateway.Credentials{AccessKey: keys.AccessKey, SecretKey: own.SecretKey}), 403, "SignatureDoesNotMatch"},
		"the VM's own":          {"GET", at + "/photos/k", signed(t, own), 403, "AccessDenied"},
		"expired":               {"GET", at + "/photos/k", signed(t, expired), 403, "ExpiredToken"},
		"made by nobody":        {"GET", at + "/photos/k", signed(t, nobodys), 403, "AccessDenied"},
		"another VM's name":     {"GET", "http://shop.s3.lodge.localhost/wares/k", signed(t, keys), 403, "AccessDenied"},
		"another VM's bucket":   {"GET", "http://wares.shop.s3.lodge.localhost/k", signed(t, keys), 403, "AccessDenied"},
		"no VM's name":          {"GET", "http://wares.none.s3.lodge.localhost/k", signed(t, keys), 403, "AccessDenied"},
		"another's, by path":    {"GET", at + "/wares/k", signed(t, keys), 404, "NoSuchBucket"},
		"another's upload":      {"GET", at + "/wares/big?uploadId=" + upload, signed(t, keys), 404, "NoSuchBucket"},
		"another's upload here": {"GET", at + "/photos/big?uploadId=" + upload, signed(t, keys), 404, "NoSuchUpload"},
		"another's version":     {"GET", at + "/wares/k?versionId=null", signed(t, keys), 404, "NoSuchBucket"},
		"another's, copied": {"PUT", at + "/photos/stolen", func(r *http.Request) {
			r.Header.Set("X-Amz-Copy-Source", "/wares/k")
			signed(t, keys)(r)
		}, 404, "NoSuchBucket"},
		"preflight": {"OPTIONS", at + "/photos/k", func(r *http.Request) { r.Header.Set("Origin", "https://a.example") }, 403, "AccessDenied"},
	} {
		for from, o := range map[string]outside{"outside": h.outside(noVM()), "the VM's tap": h.outside(g.Identity)} {
			o.send(t, c.method, c.url, c.sign).want(t, name+", from "+from, c.status, code(c.code))
		}
	}
	for where, at := range map[string]string{"its tap": g.url, "another tap": shop.url, "the host's socket": h.hostDoor()} {
		_, err := client(t, at, keys.AccessKey, keys.SecretKey).StatObject(t.Context(), "photos", "k", getOptions())
		if e := minio.ToErrorResponse(err); e.StatusCode != 403 {
			t.Errorf("a key for outside at %s: %v", where, err)
		}
	}
}

// A key for outside ends when it is revoked, and with the VM.
func TestRevokedOutside(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	o := h.outside(noVM())
	put(t, g.dummy(), "photos", "k", []byte("x"))
	keys := g.forOutside(t)
	link, err := o.client(t, keys).PresignedGetObject(t.Context(), "photos", "k", time.Hour, nil)
	gatewaytest.Must(t, err)
	o.send(t, http.MethodGet, link.String(), nil).want(t, "before", 200)
	g.setS3(t, func(s *gateway.S3Settings) { s.KeyEpoch++ })
	o.send(t, http.MethodGet, link.String(), nil).want(t, "the link, revoked", 403, code("ExpiredToken"))
	o.send(t, http.MethodGet, "http://s3.lodge.localhost/photos/k", signed(t, keys)).want(t, "the key, revoked", 403, code("ExpiredToken"))
	keys = g.forOutside(t)
	o.send(t, http.MethodGet, "http://s3.lodge.localhost/photos/k", signed(t, keys)).want(t, "a new key", 200)
	g.markRemoved(t)
	o.send(t, http.MethodGet, "http://s3.lodge.localhost/photos/k", signed(t, keys)).want(t, "of a VM that is being removed", 403, code("ExpiredToken"))
}

// A URL that the VM has presigned with its own credentials opens for who has it, as it is.
func TestPresignedInTheVM(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	page := []byte("<script>1</script>")
	for kind, key := range map[string]string{"text/html": "page", "image/png": "picture", "image/svg+xml": "drawing", "application/pdf": "paper"} {
		_, err := g.dummy().PutObject(t.Context(), "photos", key, strings.NewReader(string(page)), int64(len(page)), minio.PutObjectOptions{ContentType: kind})
		gatewaytest.Must(t, err)
	}
	o := h.outside(noVM())
	inVM := o.client(t, g.minted()) // presigning sends nothing
	for key, policy := range map[string]string{"page": "sandbox", "picture": "", "drawing": "sandbox", "paper": ""} {
		link, err := inVM.PresignedGetObject(t.Context(), "photos", key, time.Hour, nil)
		gatewaytest.Must(t, err)
		got := o.send(t, http.MethodGet, link.String(), nil)
		if got.status != 200 || got.body != string(page) || got.header.Get("Content-Security-Policy") != policy {
			t.Errorf("%s: %d %s %v", key, got.status, got.body, got.header)
		}
		other := *link
		other.Path = "/photos/other"
		o.send(t, http.MethodGet, other.String(), nil).want(t, "another object", 403, code("SignatureDoesNotMatch"))
		o.send(t, http.MethodDelete, link.String(), nil).want(t, "another method", 403, code("AccessDenied"))
		o.send(t, http.MethodGet, strings.Replace(link.String(), "X-Amz-Expires=3600", "X-Amz-Expires=7200", 1), nil).want(t, "longer", 403, code("SignatureDoesNotMatch"))
		other = *link
		other.Host = "s3.example.org"
		o.send(t, http.MethodGet, other.String(), nil).want(t, "another name", 403)
	}
	for what, of := range map[string][3]string{
		"a listing": {http.MethodGet, "", ""}, "a deletion": {http.MethodDelete, "page", ""}, "deletions": {http.MethodPost, "", "delete"},
		"a policy": {http.MethodPut, "", "policy"}, "tags": {http.MethodPut, "page", "tagging"}, "an upload": {http.MethodPost, "page", "uploads"},
	} {
		query := url.Values{}
		if of[2] != "" {
			query.Set(of[2], "")
		}
		link, err := inVM.Presign(t.Context(), of[0], "photos", of[1], time.Hour, query)
		gatewaytest.Must(t, err)
		o.send(t, of[0], link.String(), nil).want(t, what, 403, code("AccessDenied"), "lodge s3 creds")
	}
	up, err := inVM.PresignedPutObject(t.Context(), "photos", "up", time.Hour)
	gatewaytest.Must(t, err)
	o.send(t, http.MethodPut, up.String(), func(r *http.Request) { r.Body = http.NoBody }).want(t, "upload", 200)
	preflight := func(link *url.URL) reply {
		return o.send(t, http.MethodOptions, link.String(), func(r *http.Request) {
			r.Header.Set("Origin", "https://app.example")
			r.Header.Set("Access-Control-Request-Method", "PUT")
		})
	}
	preflight(up).want(t, "without a rule", 403)
	g.doBody(t, "PUT", "/photos?cors", `<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>PUT</AllowedMethod></CORSRule></CORSConfiguration>`).want(t, "rule", 200)
	preflight(up).want(t, "with a rule", 200)
	policy := `{"expiration": "` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `", "conditions": [{"bucket": "photos"}, ["starts-with", "$key", "up/"], ` +
		`{"x-amz-algorithm": "AWS4-HMAC-SHA256"}, ["starts-with", "$x-amz-credential", ""], ["starts-with", "$x-amz-date", ""]]}`
	g.post(t, h.serve(h.OutsideHandler(), noVM())+"/photos", policy, map[string]string{"key": "up/a"}, "x").want(t, "a form, not at the name", 403)
}

// Only what a browser certainly shows without running it keeps the origin.
func TestIsolate(t *testing.T) {
	for kind, free := range map[string]bool{
		"image/png": true, "IMAGE/PNG ; a=b": true, "text/plain; charset=utf-8": true, "video/mp4": true,
		"": false, "text/html": false, "image/svg+xml": false, "image/svg+xml ;x": false, "image/png,text/html": false, "image/png, text/javascript": false,
		"image/png;x=\"a,text/html": false, "audio/x-unknown": false, "image/png\ttext/html": false,
	} {
		h := http.Header{"Content-Type": {kind}}
		isolate(h)
		if got := h.Get("Content-Security-Policy") == ""; got != free || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%q: %v", kind, h)
		}
	}
	twice := http.Header{"Content-Type": {"image/png", "text/html"}}
	if isolate(twice); twice.Get("Content-Security-Policy") == "" {
		t.Error("two types")
	}
}
