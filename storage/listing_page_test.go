package storage

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"mime/multipart"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// logins knows who has a level by a header, in place of a session. Without one, and from another
// origin's page, there is what anybody has; "none" is nothing at all.
type logins struct{ vms *gateway.Directory }

func (l logins) EnterBucket(r *http.Request) (context.Context, gateway.Level, func()) {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "https://"+r.Host && origin != "http://"+r.Host {
		return r.Context(), l.anybodys(r), func() {}
	}
	switch level := gateway.Level(r.Header.Get("Level")); level {
	case "":
		return r.Context(), l.anybodys(r), func() {}
	case "none":
		return r.Context(), gateway.NoLevel, func() {}
	default:
		return r.Context(), level, func() {}
	}
}

func (l logins) anybodys(r *http.Request) gateway.Level {
	labels, _ := gateway.SplitHostBelow(r.Host, outsideName)
	dot := strings.LastIndexByte(labels, '.')
	if m, ok := l.vms.ByName(labels[dot+1:]); ok && dot > 0 && m.S3.Share(labels[:dot]).Visibility == gateway.Public {
		return gateway.View
	}
	return gateway.NoLevel
}

func (logins) TurnAwayFromBucket(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get("Accept") != "text/html" || r.Method != http.MethodGet {
		return false
	}
	w.WriteHeader(http.StatusUnauthorized)
	return true
}

// peopled is a host that knows people at the names of buckets, and a VM with the bucket box.
func peopled(t *testing.T) (guest, outside) {
	t.Helper()
	h := newHostWith(t, func(c *Config) { c.Logins = logins{c.Directory} })
	g := h.guest("blog")
	g.send(t, "PUT", "/box/dir/a.html", "", "<script>", map[string]string{"Content-Type": "text/html"}).want(t, "put", 200)
	return g, h.outside(noVM())
}

func (g guest) share(t *testing.T, bucket string, v gateway.Visibility) {
	t.Helper()
	_, err := g.host.directory.Update(t.Context(), g.ID, func(m *gateway.VM) error {
		*m = m.Reshare(bucket, gateway.Share{Visibility: v})
		return nil
	})
	gatewaytest.Must(t, err)
}

// A bucket is open as it is shared: to everyone at both names, to people where they log in.
func TestSharedBucket(t *testing.T) {
	g, o := peopled(t)
	get := func(name, path string, header ...string) reply { return o.ask(t, "GET", name, path, header...) }
	get("box.blog.s3", "/dir/a.html").want(t, "private", 403)
	get("box.blog.s3", "/dir/a.html", "Accept", "text/html").want(t, "private, a browser", 401)
	get("none.none.s3", "/dir/a.html", "Accept", "text/html").want(t, "none, a browser", 401)
	g.share(t, "box", gateway.Public)
	for name, base := range map[string]string{"box.blog.s3": "", "blog.s3": "/box"} {
		if got := get(name, base+"/dir/a.html"); got.body != "<script>" || got.header.Get("Content-Security-Policy") != "sandbox" {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
		get(name, base+"/?list-type=2").want(t, "list", 200, "<Key>dir/a.html</Key>")
		get(name, base+"/none").want(t, "missing", 404)
		for _, path := range []string{"/?versions", "/?policy", "/?uploads", "/dir/a.html?acl", "/dir/a.html?versionId=null"} {
			get(name, base+path).want(t, path, 403)
		}
		for _, method := range []string{"PUT", "DELETE", "POST"} {
			o.ask(t, method, name, base+"/dir/a.html").want(t, method, 403)
		}
	}
	get("other.blog.s3", "/").want(t, "another bucket", 403)
	g.doBody(t, "PUT", "/box?policy", policyOf(`{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/dir/*"}`)).want(t, "deny", 204)
	get("box.blog.s3", "/dir/a.html").want(t, "denied by the policy", 403)
	g.do(t, "DELETE", "/box?policy", nil).want(t, "remove", 204)
	block := "<PublicAccessBlockConfiguration><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>"
	g.doBody(t, "PUT", "/box?publicAccessBlock", block).want(t, "restrict", 200)
	get("box.blog.s3", "/dir/a.html", "Level", "view").want(t, "restricted", 403)
	get("blog.s3", "/box/dir/a.html").want(t, "restricted, by path", 403)
	g.share(t, "box", gateway.People)
	get("box.blog.s3", "/dir/a.html", "Level", "view").want(t, "for people, restricted", 200)
	get("blog.s3", "/box/dir/a.html", "Level", "use").want(t, "by path nobody logs in", 403)
	get("box.blog.s3", "/dir/a.html", "Level", "use").want(t, "who may use the VM", 200)
	o.ask(t, "PUT", "box.blog.s3", "/dir/a.html", "Level", "use").want(t, "PUT by a login", 403)
	o.ask(t, "DELETE", "box.blog.s3", "/dir/a.html", "Level", "use").want(t, "DELETE by a login", 403)
	get("s3", "/box/dir/a.html", "Level", "use").want(t, "no VM's name", 403)
}

var href = regexp.MustCompile(`href="([^"]*)"`)

// The page of a bucket lists any keys, in parts, without letting one of them act; each link leads
// to its object.
func TestListingPage(t *testing.T) {
	g, o := peopled(t)
	g.share(t, "odd", gateway.People)
	keys := []string{
		"a b+c&d%41?#.txt", `"><script>alert(1)</script>`, "'onmouseover=x", "//evil.example", "..", ".", "a/../b", "a/./c", "javascript:alert(1)", "x\r\nSet-Cookie: a=b",
		"\u202etxt.exe", "a//b", "dir/", "dir/in", "ü/\x01", "%2e%2e/%00", "back\\slash", strings.Repeat("x", 1024), "{{.Nonce}}", "data:text/html,x",
	}
	for _, key := range keys {
		put(t, g.dummy(), "odd", key, []byte(key))
	}
	page := func(path string) string {
		got := o.ask(t, "GET", "odd.blog.s3", path, "Accept", "text/html,*/*", "Level", "view")
		policy := got.header.Get("Content-Security-Policy")
		if got.status != 200 || !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "script") || strings.Contains(got.body, "<script") || strings.Contains(got.body, "type=\"file\"") {
			t.Fatalf("%s: %d %s\n%s", path, got.status, policy, got.body)
		}
		return got.body
	}
	found := map[string]bool{}
	var walk func(at string, depth int)
	walk = func(at string, depth int) {
		base, err := url.Parse("http://odd.blog.s3.lodge.localhost" + at)
		gatewaytest.Must(t, err)
		for _, m := range href.FindAllStringSubmatch(page(at), -1) {
			link := html.UnescapeString(m[1])
			to, err := base.Parse(link) // removes dot segments, as browsers do
			gatewaytest.Must(t, err)
			switch {
			case to.Host != base.Host || to.Scheme != "http" || strings.HasPrefix(link, "//"):
				t.Errorf("%s leads to %s", link, to)
			case to.RawQuery != "" || to.Path == "/":
				if depth < 4 && len(to.RawQuery) > len(base.RawQuery) {
					walk(to.RequestURI(), depth+1)
				}
			default:
				found[o.ask(t, "GET", "odd.blog.s3", to.RequestURI(), "Level", "view").body] = true
			}
		}
	}
	walk("/", 0)
	for _, key := range keys {
		if found[key] == (key == "." || key == "..") { // no browser can ask for these two
			t.Errorf("%.40q: found %t", key, found[key])
		}
	}
	o.ask(t, "GET", "odd.blog.s3", "/?prefix=%00%ff"+strings.Repeat("x", 9000), "Accept", "text/html", "Level", "view").want(t, "an odd prefix", 200, "Nothing is here.")
	o.ask(t, "GET", "odd.blog.s3", "/", "Level", "view").want(t, "a program", 200, "ListBucketResult")
	o.ask(t, "GET", "odd.blog.s3", "/?list-type=2", "Accept", "text/html", "Level", "view").want(t, "S3's own list", 200, "ListBucketResult")
	if got := o.ask(t, "HEAD", "odd.blog.s3", "/", "Accept", "text/html", "Level", "view"); got.status != 200 || got.body != "" {
		t.Errorf("HEAD: %d %q", got.status, got.body)
	}
}

// A page has 1,000 entries, and a link to the next one.
func TestListingPages(t *testing.T) {
	g, o := peopled(t)
	for i := range 1003 {
		put(t, g.dummy(), "many", fmt.Sprintf("dir/%04d", i), []byte("x"))
	}
	seen, at := map[string]bool{}, "/?prefix=dir%2F"
	for pages := 0; at != ""; pages++ {
		got := o.ask(t, "GET", "many.blog.s3", at, "Accept", "text/html", "Level", "use")
		n := 0
		at = ""
		for _, m := range href.FindAllStringSubmatch(got.body, -1) {
			switch link := html.UnescapeString(m[1]); {
			case strings.Contains(link, "marker="):
				at = link
			case strings.HasPrefix(link, "/dir/"):
				seen[link] = true
				n++
			}
		}
		if n > 1000 || pages > 1 {
			t.Fatalf("page %d has %d entries", pages, n)
		}
	}
	if len(seen) != 1003 {
		t.Errorf("%d entries", len(seen))
	}
}

// form posts a file as the form of a page does.
func (o outside) form(t *testing.T, address, file string, fields map[string]string, header ...string) reply {
	t.Helper()
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	for name, value := range fields {
		gatewaytest.Must(t, m.WriteField(name, value))
	}
	part, err := m.CreateFormFile("file", file)
	gatewaytest.Must(t, err)
	_, err = part.Write([]byte("content"))
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, m.Close())
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, &body)
	gatewaytest.Must(t, err)
	r.Header.Set("Content-Type", m.FormDataContentType())
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	o.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := o.http.Do(r)
	gatewaytest.Must(t, err)
	return readReply(t, res)
}

// Who may use the VM uploads by the page's form, and nobody else; of the form nothing but the file
// counts.
func TestUploadByForm(t *testing.T) {
	g, o := peopled(t)
	const at, origin = "http://box.blog.s3.lodge.localhost", "https://box.blog.s3.lodge.localhost"
	if page := o.ask(t, "GET", "box.blog.s3", "/?prefix=dir%2F", "Accept", "text/html", "Level", "use"); !strings.Contains(page.body, `action="/?upload=&amp;prefix=dir%2F"`) {
		t.Fatalf("no form: %d %s", page.status, page.body)
	}
	evil := map[string]string{"key": "evil", "success_action_redirect": "https://evil.example/", "x-amz-website-redirect-location": "https://evil.example/", "acl": "public-read", "policy": "x"}
	got := o.form(t, at+uploadURL("dir/\n\"é"), `a"b.html`, evil, "Level", "use", "Origin", origin)
	if got.status != 303 || got.header.Get("Location") != folderURL("dir/\n\"é") {
		t.Fatalf("upload: %d %s %v", got.status, got.body, got.header)
	}
	if body := get(t, g.dummy(), "box", "dir/\n\"é"+`a"b.html`); string(body) != "content" {
		t.Errorf("stored %q", body)
	}
	for name, c := range map[string]struct {
		address, file string
		header        []string
		status        int
	}{
		"a stranger":          {at + uploadURL(""), "f", []string{"Origin", origin}, 403},
		"a reader":            {at + uploadURL(""), "f", []string{"Origin", origin, "Level", "view"}, 403},
		"no origin":           {at + uploadURL(""), "f", []string{"Level", "use"}, 403},
		"by path":             {"http://blog.s3.lodge.localhost/box" + uploadURL(""), "f", []string{"Origin", origin, "Level", "use"}, 403},
		"no such VM":          {"http://box.none.s3.lodge.localhost" + uploadURL(""), "f", []string{"Origin", origin, "Level", "use"}, 403},
		"to an object":        {at + "/k" + uploadURL("")[1:], "f", []string{"Origin", origin, "Level", "use"}, 403},
		"without a file":      {at + uploadURL(""), "", []string{"Origin", origin, "Level", "use"}, 400},
		"a NUL":               {at + uploadURL("a\x00"), "f", []string{"Origin", origin, "Level", "use"}, 400},
		"a long key":          {at + uploadURL(strings.Repeat("x", 1024)), "f", []string{"Origin", origin, "Level", "use"}, 400},
		"S3's form, unsigned": {at + "/", "f", []string{"Origin", origin, "Level", "use"}, 400},
	} {
		o.form(t, c.address, c.file, evil, c.header...).want(t, name, c.status)
	}
	g.share(t, "box", gateway.Public)
	o.form(t, at+uploadURL(""), "f", nil, "Origin", origin).want(t, "a stranger, public", 403)
	g.doBody(t, "PUT", "/box?policy", policyOf(`{"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::box/*"}`)).want(t, "deny", 204)
	o.form(t, at+uploadURL(""), "f", nil, "Origin", origin, "Level", "use").want(t, "denied by the policy", 403)
	g.do(t, "DELETE", "/box?policy", nil).want(t, "remove", 204)
	g.setS3(t, func(s *gateway.S3Settings) { s.QuotaBytes = 1 })
	o.form(t, at+uploadURL(""), "f", nil, "Origin", origin, "Level", "use").want(t, "above the quota", 507)
	list, err := g.dummy().ListBuckets(t.Context())
	gatewaytest.Must(t, err)
	if len(list) != 1 {
		t.Errorf("buckets: %v", list)
	}
}

// The website of a bucket that is shared with people is theirs. A session opens nothing else there.
func TestSiteForPeople(t *testing.T) {
	g, o := peopled(t)
	g.send(t, "PUT", "/box/index.html", "", "home", map[string]string{"Content-Type": "text/html"}).want(t, "put", 200)
	g.doBody(t, "PUT", "/box?website", siteXML).want(t, "set", 200)
	for v, want := range map[gateway.Visibility]map[string]int{
		gateway.Private: {"": 401, "view": 401, "use": 401},
		gateway.People:  {"": 401, "view": 200, "use": 200},
		gateway.Link:    {"": 401, "view": 200, "use": 200},
	} {
		g.share(t, "box", v)
		for level, status := range want {
			got := o.ask(t, "GET", "box.blog.s3", "/", "Accept", "text/html", "Level", level)
			if got.status != status || status == 200 && got.body != "home" {
				t.Errorf("%s, %q: %d %s", v, level, got.status, got.body)
			}
		}
	}
}

// A website's script acts with the session of its visitor, whatever that may do with the bucket: it
// reads what the website shows, and uploads nothing.
func TestSiteScriptHasNoRights(t *testing.T) {
	g, o := peopled(t)
	const at, origin = "http://box.blog.s3.lodge.localhost", "https://box.blog.s3.lodge.localhost"
	g.send(t, "PUT", "/box/secret", "", "x", nil).want(t, "put", 200)
	g.send(t, "PUT", "/box/public/a", "", "shown", nil).want(t, "put", 200)
	g.doBody(t, "PUT", "/box?policy", policyOf(readAll)).want(t, "policy", 204)
	o.form(t, at+uploadURL(""), "before", nil, "Origin", origin, "Level", "use").want(t, "no website", 303)
	g.doBody(t, "PUT", "/box?website", siteXML).want(t, "set", 200)
	for _, level := range []string{"", "view", "use"} {
		o.form(t, at+uploadURL(""), "index.html", nil, "Origin", origin, "Level", level).want(t, "upload, "+level, 403)
		o.form(t, at+"/?upload", "index.html", nil, "Origin", origin, "Level", level).want(t, "upload, "+level, 403)
		for _, method := range []string{"GET", "HEAD"} {
			o.ask(t, method, "box.blog.s3", "/public/a", "Level", level).want(t, level+", shown", 200)
			for _, path := range []string{"/secret", "/secret?versionId=null", "/secret?acl"} {
				o.ask(t, method, "box.blog.s3", path, "Level", level).want(t, level+", "+path, 403)
			}
		}
		for _, path := range []string{"/secret", "/?delete", "/secret?uploads"} {
			o.ask(t, "POST", "box.blog.s3", path, "Level", level).want(t, level+", POST "+path, 403)
		}
	}
	g.do(t, "GET", "/box/index.html", nil).want(t, "nothing was stored", 404)
}
