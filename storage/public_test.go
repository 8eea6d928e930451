package storage

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// ask sends an unsigned request to <name>.lodge.localhost, with a path as it is.
func (o outside) ask(t *testing.T, method, name, path string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+name+".lodge.localhost", http.NoBody)
	gatewaytest.Must(t, err)
	raw, query, _ := strings.Cut(path, "?")
	plain, err := url.PathUnescape(raw)
	gatewaytest.Must(t, err)
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = plain, raw, query
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	o.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := o.http.Do(r)
	gatewaytest.Must(t, err)
	return readReply(t, res)
}

var ofOneRequest = regexp.MustCompile(`<(RequestId|Resource)>[^<]*<`)

// shape is all of an answer but what differs from request to request.
func (r reply) shape() string {
	r.header.Del("Date")
	r.header.Del("Content-Length") // that of the path
	return fmt.Sprint(r.status, r.header, ofOneRequest.ReplaceAllString(r.body, "<$1><"))
}

const publicRule = `<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod></CORSRule></CORSConfiguration>`

// What a policy opens to anybody is open at the VM's public names, by path and by name, and
// isolated there.
func TestPublicOutside(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	g.send(t, "PUT", "/box/public/a", "", "<script>", map[string]string{"Content-Type": "text/html"}).want(t, "put", 200)
	g.send(t, "PUT", "/box/private", "", "x", nil).want(t, "put", 200)
	g.doBody(t, "PUT", "/box?cors", publicRule).want(t, "cors", 200)
	o := h.outside(noVM())
	o.ask(t, "GET", "blog.s3", "/box/public/a").want(t, "without a policy", 403, code("AccessDenied"))
	g.doBody(t, "PUT", "/box?policy", policyOf(readAll)).want(t, "set", 204)
	for name, path := range map[string]string{"blog.s3": "/box/public/a", "box.blog.s3": "/public/a", "BOX.Blog.S3": "/public/a?x-id=GetObject"} {
		got := o.ask(t, "GET", name, path, "Origin", "https://a.example", "Service-Worker", "script")
		if got.status != 200 || got.body != "<script>" || got.header.Get("Content-Security-Policy") != "sandbox" || got.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %s %v", name, got.status, got.body, got.header)
		}
		o.ask(t, "HEAD", name, path).want(t, name, 200)
	}
	o.ask(t, "GET", "box.blog.s3", "/public/a", "Range", "bytes=99-").want(t, "a range", 416)
	o.ask(t, "GET", "s3", "/box/public/a").want(t, "a name without a VM", 403)
	list := `{"Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::box"}`
	o.ask(t, "GET", "box.blog.s3", "/public/none").want(t, "missing, without a list", 403)
	g.doBody(t, "PUT", "/box?policy", policyOf(readAll, list)).want(t, "set", 204)
	o.ask(t, "GET", "box.blog.s3", "/public/none").want(t, "missing, with a list", 404, code("NoSuchKey"))
	o.ask(t, "GET", "box.blog.s3", "/?list-type=2").want(t, "list", 200, "<Key>private</Key>")
	write := `{"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::box/*"}`
	g.doBody(t, "PUT", "/box?policy", policyOf(readAll, list, write)).want(t, "set", 204)
	o.ask(t, "PUT", "box.blog.s3", "/up").want(t, "write", 200)
	o.ask(t, "PUT", "box.blog.s3", "/public/copy", "X-Amz-Copy-Source", "/box/private").want(t, "a copy", 403)
	o.ask(t, "PUT", "box.blog.s3", "/public/b", "X-Amz-Website-Redirect-Location", "/a\tb").want(t, "odd, but harmless", 200)
	g.markRemoved(t)
	o.ask(t, "GET", "box.blog.s3", "/public/a").want(t, "of a VM that is being removed", 403)
}

// Strangers get one and the same answer, whether there is such a VM, bucket or key.
func TestClosedOutside(t *testing.T) {
	h := newHost(t)
	g, shop := h.guest("blog"), h.guest("shop")
	for _, path := range []string{"/box/private", "/open/public/a", "/open/secret"} {
		g.send(t, "PUT", path, "", "x", nil).want(t, path, 200)
	}
	g.doBody(t, "PUT", "/open?policy", policyOf(strings.ReplaceAll(readAll, "box/", "open/"))).want(t, "set", 204)
	g.doBody(t, "PUT", "/open?cors", publicRule).want(t, "cors", 200)
	g.doBody(t, "PUT", "/box?cors", publicRule).want(t, "cors", 200)
	long, deep := strings.Repeat("x", 10_000), strings.Repeat("%2e%2e/", 300)
	for from, o := range map[string]outside{"outside": h.outside(noVM()), "the VM's tap": h.outside(g.Identity), "another's": h.outside(shop.Identity)} {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE"} {
			want := o.ask(t, method, "none.s3", "/box/private", "Origin", "https://a.example")
			if want.status != 403 {
				t.Fatalf("no VM: %d", want.status)
			}
			for name, paths := range map[string][]string{
				"s3":           {"/", "/box", "/box/private", "/open/public/a"},
				"blog.s3":      {"/", "/box", "/box/", "/box/private", "/box/none", "/none/k", "/open", "/open/secret", "/open/none", "/open?policy", "/open/public/../secret", "/Bad_/k", "//box/k", "/box/" + long, "/" + long, "/box/%00", "/open/%00", "/open/%ff", "/open/" + deep, "/open/public/a?acl", "/open/public/a?uploads"},
				"box.blog.s3":  {"/", "/private", "/none", "/?website", "/?list-type=2", "/" + long, "/%00", "/..%2f..%2fopen/public/a", "/../open/public/a"},
				"none.blog.s3": {"/"}, "box.none.s3": {"/private"}, "x.y.z.s3": {"/"}, "-.blog.s3": {"/"}, "open.shop.s3": {"/public/a"},
			} {
				for _, path := range paths {
					got := o.ask(t, method, name, path, "Origin", "https://a.example")
					if got.shape() != want.shape() {
						t.Errorf("%s %s %.60s from %s:\n%s\nwant\n%s", method, name, path, from, got.shape(), want.shape())
					}
				}
			}
		}
	}
	var names []string
	buckets, _, err := h.objects.Buckets(g.ID, "", "", 10)
	gatewaytest.Must(t, err)
	for _, b := range buckets {
		names = append(names, b.Name)
	}
	if !slices.Equal(names, []string{"box", "open"}) {
		t.Errorf("strangers have made a bucket: %q", names)
	}
}

// What is closed takes none of the VM's places: their end would show that the VM exists.
func TestClosedTakesNoPlace(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	g.send(t, "PUT", "/box/k", "", "x", nil).want(t, "put", 200)
	for range 64 {
		_, leave, err := h.admission.enter(t.Context(), g.ID, atPublic, false)
		gatewaytest.Must(t, err)
		defer leave()
	}
	o := h.outside(noVM())
	o.ask(t, "GET", "box.blog.s3", "/k").want(t, "closed", 403)
	g.doBody(t, "PUT", "/box?policy", policyOf(strings.ReplaceAll(readAll, "box/public/*", "box/*"))).want(t, "set", 204)
	o.ask(t, "GET", "box.blog.s3", "/k").want(t, "public", 503, code("SlowDown"))
}

// A bucket's website is at the bucket's own name, for what is not signed. Its pages may run script
// there; no object is a page by path, or by a signature.
func TestSite(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	for key, body := range map[string]string{"index.html": "home", "error.html": "sorry", "docs/index.html": "docs", "%2F%2Fevil.example/index.html": "odd", "secret": "x"} {
		g.send(t, "PUT", "/box/"+key, "", body, map[string]string{"Content-Type": "text/html"}).want(t, key, 200)
	}
	g.doBody(t, "PUT", "/box?website", siteXML).want(t, "set", 200)
	o := h.outside(noVM())
	o.ask(t, "GET", "box.blog.s3", "/").want(t, "not public", 403, code("AccessDenied"))
	g.doBody(t, "PUT", "/box?policy", policyOf(strings.Replace(readAll, "box/public/*", "box/*", 1),
		`{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/secret"}`)).want(t, "public", 204)
	for path, c := range map[string]struct {
		status         int
		body, location string
	}{
		"/": {200, "home", ""}, "/?list-type=2": {200, "home", ""}, "/docs/": {200, "docs", ""}, "/docs": {302, "", "/docs/"}, "/none": {404, "sorry", ""},
		"/secret": {403, "sorry", ""}, "/old/%0d%0aSet-Cookie:x": {301, "", "/new/%0D%0ASet-Cookie:x"},
		"///evil.example": {302, "", "/%2F%2Fevil.example/"}, "/old//evil.example": {301, "", "/new//evil.example"},
	} {
		got := o.ask(t, "GET", "box.blog.s3", path)
		if got.status != c.status || got.body != c.body || got.header.Get("Location") != c.location || got.header.Get("Content-Security-Policy") != "" {
			t.Errorf("%s: %d %q %v", path, got.status, got.body, got.header)
		}
	}
	got := o.send(t, "GET", "http://box.blog.s3.lodge.localhost/index.html", signed(t, g.forOutside(t)))
	if got.status != 200 || got.header.Get("Content-Security-Policy") != "sandbox" {
		t.Errorf("signed: %d %v", got.status, got.header)
	}
	o.send(t, "GET", "http://box.blog.s3.lodge.localhost/", signed(t, g.forOutside(t))).want(t, "a signed list", 200, "<Key>index.html</Key>")
	for _, path := range []string{"/box/index.html", "/box/"} {
		if got := o.ask(t, "GET", "blog.s3", path); got.body == "home" && got.header.Get("Content-Security-Policy") != "sandbox" {
			t.Errorf("by path: %s: %v", path, got.header)
		}
	}
	o.ask(t, "GET", "box.blog.s3", "/index.html", "Service-Worker", "script").want(t, "a service worker", 403)
	if got := o.ask(t, "GET", "box.blog.s3", "/%00"); got.status < 400 || got.header.Get("Content-Security-Policy") != "sandbox" {
		t.Errorf("an error: %d %v", got.status, got.header)
	}
	o.ask(t, "GET", "box.shop.s3", "/").want(t, "another VM", 403)
	redirect := "<WebsiteConfiguration><RedirectAllRequestsTo><HostName>example.com</HostName></RedirectAllRequestsTo></WebsiteConfiguration>"
	g.doBody(t, "PUT", "/box?website", redirect).want(t, "redirect all", 200)
	for _, path := range []string{"/a", "///a", "//@evil.example/a", "/%5Ca"} {
		if got := o.ask(t, "GET", "box.blog.s3", path); got.status != 301 || !strings.HasPrefix(got.header.Get("Location"), "http://example.com/") {
			t.Errorf("%s: %d %s", path, got.status, got.header.Get("Location"))
		}
	}
}
