package storage

import (
	"fmt"
	"html"
	"net/http"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

const restricted = "<PublicAccessBlockConfiguration><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>"

// A public access block closes websites too, with their redirects: the answer is that for no bucket
// at all.
func TestRestrictedWebsite(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	g.do(t, "PUT", "/box", nil).want(t, "make", 200)
	o := h.outside(noVM())
	want := o.ask(t, "GET", "none.none.s3", "/")
	for name, site := range map[string]string{
		"all": "<WebsiteConfiguration><RedirectAllRequestsTo><HostName>example.com</HostName></RedirectAllRequestsTo></WebsiteConfiguration>", "rules": siteXML,
	} {
		g.doBody(t, "PUT", "/box?website", site).want(t, name, 200)
		o.ask(t, "GET", "box.blog.s3", "/old/a").want(t, name+": open", 301)
		g.doBody(t, "PUT", "/box?publicAccessBlock", restricted).want(t, "restrict", 200)
		if got := o.ask(t, "GET", "box.blog.s3", "/old/a"); got.shape() != want.shape() {
			t.Errorf("%s: restricted: %s", name, got.shape())
		}
		g.do(t, "DELETE", "/box?publicAccessBlock", nil).want(t, "remove", 204)
	}
}

// What nobody may do anything with takes none of the VM's places, whatever its settings are.
func TestClosedByPolicyTakesNoPlace(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	g.send(t, "PUT", "/box/k", "", "x", nil).want(t, "put", 200)
	for range 64 {
		_, leave, err := h.admission.enter(t.Context(), g.ID, atPublic, false)
		gatewaytest.Must(t, err)
		defer leave()
	}
	o := h.outside(noVM())
	deny := `{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*"}`
	own := `{"Effect": "Allow", "Principal": {"AWS": "` + g.ID.String() + `"}, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*"}`
	for _, policy := range []string{policyOf(deny), policyOf(own), policyOf(deny, own)} {
		g.doBody(t, "PUT", "/box?policy", policy).want(t, "set", 204)
		o.ask(t, "GET", "box.blog.s3", "/k").want(t, "closed", 403)
	}
	g.doBody(t, "PUT", "/box?policy", policyOf(readAll)).want(t, "set", 204)
	o.ask(t, "GET", "box.blog.s3", "/public/k").want(t, "open", 503)
	g.doBody(t, "PUT", "/box?publicAccessBlock", restricted).want(t, "restrict", 200)
	o.ask(t, "GET", "box.blog.s3", "/public/k").want(t, "restricted", 403)
}

// A fork is closed to everyone from its first moment, whatever its source has opened, until its
// block is removed.
func TestForkIsNotPublic(t *testing.T) {
	h := newHost(t)
	g, fork := h.guest("blog"), h.guest("trial")
	for _, bucket := range []string{"policy", "site", "list", "plain"} {
		g.send(t, "PUT", "/"+bucket+"/public/a", "", "x", nil).want(t, bucket, 200)
	}
	g.doBody(t, "PUT", "/policy?policy", policyOf(strings.ReplaceAll(readAll, "box/", "policy/"))).want(t, "policy", 204)
	g.doBody(t, "PUT", "/site?website", siteXML).want(t, "website", 200)
	g.doBody(t, "PUT", "/list?ownershipControls", ownership).want(t, "ownership", 200)
	g.do(t, "PUT", "/list/public/a?acl", map[string]string{"X-Amz-Acl": "public-read"}).want(t, "list", 200)
	h.mark(t, g.ID, "at")
	for range 2 {
		gatewaytest.Must(t, h.Fork(t.Context(), g.ID, "at", fork.ID))
	}
	o := h.outside(noVM())
	paths := map[string]int{"policy": 200, "site": 301, "list": 200, "plain": 403}
	path := func(bucket string) string {
		if bucket == "site" {
			return "/old/a"
		}
		return "/public/a"
	}
	for bucket, status := range paths {
		o.ask(t, "GET", bucket+".blog.s3", path(bucket)).want(t, "the source: "+bucket, status)
		o.ask(t, "GET", bucket+".trial.s3", path(bucket)).want(t, "the fork: "+bucket, 403)
		fork.do(t, "GET", "/"+bucket+"/public/a", nil).want(t, "the fork itself", 200)
		fork.do(t, "GET", "/"+bucket+"?publicAccessBlock", nil).want(t, "the block", 200, "<RestrictPublicBuckets>true<", "<BlockPublicPolicy>true<")
		fork.do(t, "DELETE", "/"+bucket+"?publicAccessBlock", nil).want(t, "remove the block", 204)
		o.ask(t, "GET", bucket+".trial.s3", path(bucket)).want(t, "opened: "+bucket, status)
	}
}

// What a login or a link opens is kept by no cache for others, whatever the object asks for; what
// is public may be.
func TestPrivateAnswersAreNotCached(t *testing.T) {
	g, o := peopled(t)
	g.send(t, "PUT", "/box/k", "", "x", map[string]string{"Cache-Control": "public, max-age=3600"}).want(t, "put", 200)
	for v, shared := range map[gateway.Visibility]string{gateway.People: "private, no-cache", gateway.Link: "private, no-cache", gateway.Public: "public, max-age=3600"} {
		g.share(t, "box", v)
		for level, want := range map[string]string{"view": shared, "use": "private, no-cache"} { // who may use the VM reads versions too
			for _, header := range [][]string{nil, {"Range", "bytes=0-0"}} {
				got := o.ask(t, "GET", "box.blog.s3", "/k", append([]string{"Level", level}, header...)...)
				if kept := got.header.Values("Cache-Control"); got.status >= 300 || len(kept) != 1 || kept[0] != want {
					t.Errorf("%s, %s: %d %q", v, level, got.status, kept)
				}
			}
			again := o.ask(t, "GET", "box.blog.s3", "/k", "Level", level, "If-None-Match", `"9dd4e461268c8034f5c8564e155c67a6"`)
			if kept := again.header.Get("Cache-Control"); again.status != 304 || kept != want {
				t.Errorf("%s, %s, not modified: %d %q", v, level, again.status, kept)
			}
		}
	}
	g.share(t, "box", gateway.People)
	if got := o.ask(t, "GET", "box.blog.s3", "/?list-type=2", "Level", "view"); got.header.Get("Cache-Control") != "private, no-cache" {
		t.Errorf("a list: %v", got.header)
	}
	if got := o.ask(t, "GET", "box.blog.s3", "/", "Level", "use", "Accept", "text/html"); got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the page: %v", got.header)
	}
	if got := o.ask(t, "GET", "box.blog.s3", "/k"); got.status != 403 || got.header.Get("Cache-Control") != "" {
		t.Errorf("closed: %d %v", got.status, got.header)
	}
}

// Who has not signed a request sets no headers of its answer.
func TestOverridesNeedASignature(t *testing.T) {
	g, o := peopled(t)
	g.send(t, "PUT", "/box/k", "", "x", map[string]string{"Content-Type": "text/plain"}).want(t, "put", 200)
	g.share(t, "box", gateway.Public)
	for _, header := range []string{"content-type=text%2Fhtml", "content-disposition=attachment", "cache-control=public", "content-encoding=gzip", "content-language=en", "expires=x", "content-type="} {
		for _, level := range []string{"view", "use"} {
			o.ask(t, "GET", "box.blog.s3", "/k?response-"+header, "Level", level).want(t, level+" "+header, 400, code("InvalidRequest"))
		}
		o.ask(t, "GET", "blog.s3", "/box/k?response-"+header).want(t, "by path, "+header, 400, code("InvalidRequest"))
		o.ask(t, "GET", "none.blog.s3", "/k?response-"+header).want(t, "no bucket, "+header, 403)
	}
	got := o.send(t, "GET", "http://box.blog.s3.lodge.localhost/k?response-content-type=text%2Fcsv", signed(t, g.forOutside(t)))
	if got.status != 200 || got.header.Get("Content-Type") != "text/csv" {
		t.Errorf("signed: %d %v", got.status, got.header)
	}
	if got := g.do(t, "GET", "/box/k?response-content-type=text%2Fcsv", nil); got.header.Get("Content-Type") != "text/csv" {
		t.Errorf("in the VM: %d %v", got.status, got.header)
	}
}

// Strangers see neither how much a VM stores nor its id.
func TestStrangersSeeNoFigures(t *testing.T) {
	h := newHost(t)
	g := h.guest("blog")
	g.send(t, "PUT", "/box/k", "", "x", nil).want(t, "put", 200)
	g.doBody(t, "PUT", "/box?policy", policyOf(`{"Effect": "Allow", "Principal": "*", "Action": ["s3:PutObject", "s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads", "s3:GetBucketAcl"], "Resource": ["arn:aws:s3:::box", "arn:aws:s3:::box/*"]}`)).want(t, "set", 204)
	o := h.outside(noVM())
	for _, path := range []string{"/", "/?list-type=2&fetch-owner=true", "/?versions", "/?uploads", "/?acl"} {
		got := o.ask(t, "GET", "box.blog.s3", path)
		got.want(t, path, 200)
		if strings.Contains(got.body, "<Owner>") || strings.Contains(got.body, g.ID.String()) {
			t.Errorf("%s: %s", path, got.body)
		}
	}
	g.do(t, "GET", "/box", nil).want(t, "in the VM", 200, "<Owner><ID>"+g.ID.String())
	g.setS3(t, func(s *gateway.S3Settings) { s.QuotaBytes = 1 })
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://box.blog.s3.lodge.localhost/up", strings.NewReader("too much"))
	gatewaytest.Must(t, err)
	res, err := o.http.Do(r)
	gatewaytest.Must(t, err)
	got := readReply(t, res)
	got.want(t, "above the quota", 507, code("QuotaExceeded"))
	if strings.Contains(got.body, "byte") || strings.Contains(got.body, "quota of") || strings.ContainsAny(between(got.body, "<Message>", "</Message>"), "0123456789") {
		t.Errorf("above the quota: %s", got.body)
	}
	g.send(t, "PUT", "/box/more", "", "too much", nil).want(t, "in the VM", 507, code("QuotaExceeded"))
}

// At a bucket's name Logins decides about what is public too: what it lets in ends when that
// changes.
func TestLoginsDecideAboutPublic(t *testing.T) {
	g, o := peopled(t)
	g.share(t, "box", gateway.Public)
	o.ask(t, "GET", "box.blog.s3", "/dir/a.html").want(t, "public", 200)
	o.ask(t, "GET", "box.blog.s3", "/dir/a.html", "Level", "none").want(t, "not by the logins", 403)
	o.ask(t, "GET", "blog.s3", "/box/dir/a.html", "Level", "none").want(t, "by path", 200)
}

// Lists for strangers and browsers are bounded in bytes, whatever the keys are, and go on where
// they end.
func TestStrangersListsAreBounded(t *testing.T) {
	g, o := peopled(t)
	const n = 300
	for i := range n {
		put(t, g.dummy(), "long", fmt.Sprintf("%s%04d", strings.Repeat("\"", 1000), i), nil)
	}
	g.share(t, "long", gateway.Public)
	pages, seen, at := 0, 0, "/"
	for ; at != "" && pages < n; pages++ {
		got := o.ask(t, "GET", "long.blog.s3", at, "Accept", "text/html")
		if len(got.body) > 270<<10 || got.status != 200 {
			t.Fatalf("a page: %d, %d bytes", got.status, len(got.body))
		}
		seen += strings.Count(got.body, "<tr><td>")
		at = html.UnescapeString(between(got.body, `<p><a href="`, `"`))
	}
	if seen != n || pages < 2 {
		t.Errorf("%d keys on %d pages", seen, pages)
	}
	seen, at = 0, "/long?list-type=2"
	for pages = 0; at != "" && pages < n; pages++ {
		got := o.ask(t, "GET", "blog.s3", at)
		if len(got.body) > 270<<10 || got.status != 200 {
			t.Fatalf("a list: %d, %d bytes", got.status, len(got.body))
		}
		seen += strings.Count(got.body, "<Key>")
		if at = ""; strings.Contains(got.body, "<IsTruncated>true") {
			at = "/long?list-type=2&continuation-token=" + between(got.body, "<NextContinuationToken>", "<")
		}
	}
	if seen != n || pages < 2 {
		t.Errorf("%d keys in %d lists", seen, pages)
	}
	if got := g.do(t, "GET", "/long?list-type=2", nil); strings.Count(got.body, "<Key>") != n {
		t.Errorf("in the VM: %d bytes", len(got.body))
	}
}

// Strangers take none of the places of who has a key or a login, whatever they ask for; one of them
// has few, at all VMs together.
func TestStrangersHavePlacesOfTheirOwn(t *testing.T) {
	h := newHostWith(t, func(c *Config) { c.Logins = logins{c.Directory} })
	g, shop := h.guest("blog"), h.guest("shop")
	for _, of := range []guest{g, shop} {
		of.send(t, "PUT", "/box/k", "", "x", nil).want(t, "put", 200)
		of.share(t, "box", gateway.Public)
	}
	o := h.outside(noVM())
	var leave []func()
	for range 64 {
		_, left, err := h.admission.enter(t.Context(), g.ID, atPublic, false)
		gatewaytest.Must(t, err)
		leave = append(leave, left)
	}
	o.ask(t, "GET", "box.blog.s3", "/k").want(t, "a stranger more", 503, code("SlowDown"))
	o.ask(t, "GET", "box.blog.s3", "/k", "Level", "use").want(t, "a login", 200)
	o.send(t, "GET", "http://box.blog.s3.lodge.localhost/k", signed(t, g.forOutside(t))).want(t, "a key", 200)
	g.do(t, "GET", "/box/k", nil).want(t, "the VM", 200)
	o.ask(t, "GET", "box.shop.s3", "/k").want(t, "another VM", 200)
	for _, left := range leave {
		left()
	}
	for range maxStrangersLists {
		_, left, err := h.admission.enter(t.Context(), g.ID, atPublic, true)
		gatewaytest.Must(t, err)
		defer left()
	}
	o.ask(t, "GET", "box.blog.s3", "/?list-type=2").want(t, "a list more", 503, code("SlowDown"))
	o.ask(t, "GET", "box.blog.s3", "/k").want(t, "an object", 200)
	o.send(t, "GET", "http://box.blog.s3.lodge.localhost/?list-type=2", signed(t, g.forOutside(t))).want(t, "a list, by a key", 200)
	for range maxRequestsPerPeer {
		_, ok := h.admission.peers.Enter(gateway.Peer{VM: shop.ID})
		if !ok {
			t.Fatal("too few")
		}
	}
	one := h.outside(shop.Identity)
	one.ask(t, "GET", "box.shop.s3", "/k").want(t, "of one peer", 503, code("SlowDown"))
	one.ask(t, "GET", "none.shop.s3", "/k").want(t, "closed", 403)
	o.ask(t, "GET", "box.shop.s3", "/k").want(t, "by way of a proxy on the host", 200)
}

// No cache answers a service worker's script with a website's page.
func TestSiteVaries(t *testing.T) {
	g, o := peopled(t)
	g.send(t, "PUT", "/box/index.html", "", "home", map[string]string{"Content-Type": "text/html"}).want(t, "put", 200)
	g.doBody(t, "PUT", "/box?website", siteXML).want(t, "set", 200)
	g.share(t, "box", gateway.Public)
	for path, status := range map[string]int{"/": 200, "/old/a": 301, "/none": 404} {
		got := o.ask(t, "GET", "box.blog.s3", path)
		if got.status != status || !slices.Contains(got.header.Values("Vary"), "Service-Worker") {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
	}
}
