package storage

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lodge/storage/s3"
)

// page asks for a page of the website of the bucket "box", as a door outside does.
func (g guest) page(t *testing.T, method, key string, header map[string]string) reply {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "/", http.NoBody)
	for name, value := range header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	target := s3.Target{Bucket: "box", Key: key}
	if err := g.host.protocol.Website(w, r, s3.Caller{VM: g.Identity, Anonymous: true}, target); err != nil {
		s3.WriteError(w, r, target, err)
	}
	return reply{w.Code, w.Body.String(), w.Header()}
}

const siteXML = `<WebsiteConfiguration><IndexDocument><Suffix>index.html</Suffix></IndexDocument><ErrorDocument><Key>error.html</Key></ErrorDocument>` +
	`<RoutingRules><RoutingRule><Condition><KeyPrefixEquals>old/</KeyPrefixEquals></Condition><Redirect><ReplaceKeyPrefixWith>new/</ReplaceKeyPrefixWith></Redirect></RoutingRule>` +
	`<RoutingRule><Condition><KeyPrefixEquals>gone/</KeyPrefixEquals><HttpErrorCodeReturnedEquals>404</HttpErrorCodeReturnedEquals></Condition>` +
	`<Redirect><Protocol>https</Protocol><HostName>example.com</HostName><ReplaceKeyWith>why</ReplaceKeyWith><HttpRedirectCode>307</HttpRedirectCode></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>`

func TestWebsite(t *testing.T) {
	g := newHost(t).guest("blog")
	for key, body := range map[string]string{"index.html": "home", "error.html": "sorry", "docs/index.html": "docs", "a.txt": "text", "secret": "x", "gone/here": "here"} {
		g.send(t, "PUT", "/box/"+key, "", body, nil).want(t, key, 200)
	}
	g.send(t, "PUT", "/box/moved", "", "", map[string]string{"X-Amz-Website-Redirect-Location": "/a.txt"}).want(t, "moved", 200)
	g.page(t, "GET", "", nil).want(t, "no website", 404, code("NoSuchWebsiteConfiguration"))
	g.doBody(t, "PUT", "/box?website", siteXML).want(t, "set", 200)
	g.do(t, "GET", "/box?website", nil).want(t, "get", 200, "<Suffix>index.html</Suffix>")
	g.page(t, "GET", "", nil).want(t, "private", 403)
	g.doBody(t, "PUT", "/box?policy", policyOf(strings.Replace(readAll, "box/public/*", "box/*", 1),
		`{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/secret"}`)).want(t, "public", 204)
	for key, c := range map[string]struct {
		status         int
		body, location string
	}{
		"": {200, "home", ""}, "a.txt": {200, "text", ""}, "docs/": {200, "docs", ""}, "docs": {302, "", "/docs/"}, "none": {404, "sorry", ""},
		"none/": {404, "sorry", ""}, "secret": {403, "sorry", ""}, "moved": {301, "", "/a.txt"}, "old/x y": {301, "", "/new/x%20y"},
		"gone/x": {307, "", "https://example.com/why"}, "gone/here": {200, "here", ""}, strings.Repeat("x", 1025): {400, "sorry", ""},
	} {
		if got := g.page(t, "GET", key, nil); got.status != c.status || got.body != c.body || got.header.Get("Location") != c.location {
			t.Errorf("%.40q: %d %q %q", key, got.status, got.body, got.header.Get("Location"))
		}
		if got := g.page(t, "HEAD", key, nil); got.status != c.status || got.body != "" {
			t.Errorf("HEAD %.40q: %d %q", key, got.status, got.body)
		}
	}
	g.page(t, "GET", "a.txt", map[string]string{"Range": "bytes=1-2"}).want(t, "range", 206, "ex")
	g.page(t, "PUT", "a.txt", nil).want(t, "PUT", 405)
	g.doBody(t, "PUT", "/box?website", "<WebsiteConfiguration><RedirectAllRequestsTo><HostName>example.com</HostName></RedirectAllRequestsTo></WebsiteConfiguration>").want(t, "set", 200)
	if got := g.page(t, "GET", "//a", nil); got.status != 301 || got.header.Get("Location") != "http://example.com/a" {
		t.Errorf("all: %d %s", got.status, got.header.Get("Location"))
	}
	for name, text := range map[string]string{
		"empty": "<WebsiteConfiguration/>", "other": "<Nonsense/>", "slash": strings.Replace(siteXML, "index.html", "a/b", 1), "no error key": strings.Replace(siteXML, "error.html", "", 1),
		"code": strings.Replace(siteXML, "307", "200", 1), "protocol": strings.Replace(siteXML, "https", "ftp", 1), "status": strings.Replace(siteXML, ">404<", ">200<", 1),
		"host": strings.Replace(siteXML, "example.com", "example.com/x", 1), "both": strings.Replace(siteXML, "<ReplaceKeyWith>why", "<ReplaceKeyPrefixWith>a</ReplaceKeyPrefixWith><ReplaceKeyWith>why", 1),
	} {
		if got := g.doBody(t, "PUT", "/box?website", text); got.status != 400 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	g.do(t, "DELETE", "/box?website", nil).want(t, "remove", 204)
	g.page(t, "GET", "", nil).want(t, "removed", 404)
}
