package https_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/https"
)

// bucketSite serves, at the names of buckets, what the login of a request opens there.
type bucketSite struct {
	*site

	blog, shop gateway.VM
	ada, eve   people.Person
}

func newBucketSite(t *testing.T) bucketSite {
	t.Helper()
	var b bucketSite
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, level, leave := b.server.EnterBucket(r)
		defer leave()
		switch {
		case r.URL.Path == "/stream" && level != gateway.NoLevel:
			_ = http.NewResponseController(w).Flush() // the test sees whether it arrives
			<-ctx.Done()
			panic(http.ErrAbortHandler)
		case level == gateway.NoLevel && b.server.TurnAwayFromBucket(w, r):
		case level == gateway.NoLevel:
			http.Error(w, "no", http.StatusForbidden)
		default:
			_, _ = fmt.Fprint(w, "level="+string(level))
		}
	})
	b.site = newSite(t, func(c *https.Config) { c.Services = map[string]http.Handler{"s3.lodge.localhost": handler} })
	b.ada, b.eve = b.person("ada@example.com"), b.person("eve@example.org")
	b.blog, b.shop = b.vm("blog"), b.vm("shop")
	return b
}

// share sets who may list and read blog's bucket photos.
func (b bucketSite) share(v gateway.Visibility, with ...gateway.Principal) {
	b.tb.Helper()
	b.change(b.blog, func(m *gateway.VM) { *m = m.Reshare("photos", gateway.Share{Visibility: v, With: with}) })
}

// A login at the domain opens the buckets that are shared with its person, and writes to those of
// VMs that they may use.
func TestBucketLogin(t *testing.T) {
	t.Parallel()
	b := newBucketSite(t)
	b.share(gateway.People, b.ada.ID)
	b.change(b.blog, func(m *gateway.VM) { m.Grants = m.WithGrant(b.eve.ID, gateway.View) })
	b.change(b.shop, func(m *gateway.VM) { m.Grants = m.WithGrant(b.eve.ID, gateway.Use) })
	clients := map[string]*http.Client{"ann": b.client(), "ada": b.client(), "eve": b.client()}
	b.loginAtRoot(clients["ann"])
	b.loginAtRootAs(clients["ada"], b.ada)
	b.loginAtRootAs(clients["eve"], b.eve)
	for who, want := range map[string]map[string]string{
		"ann": {"photos.blog": "use", "other.blog": "use", "wares.shop": "use", "photos.none": ""},
		"ada": {"photos.blog": "view", "other.blog": "", "a.photos.blog": "", "wares.shop": "", "photos.shop": "", "photos.none": ""},
		"eve": {"photos.blog": "", "wares.shop": "use"}, // pages are no files
	} {
		for name, level := range want {
			a := b.through(clients[who], b.url(name+".s3")+"/a?prefix=%2F")
			if level != "" && a.body != "level="+level || level == "" && a.StatusCode != http.StatusForbidden {
				t.Errorf("%s at %s: %s %.200s", who, name, a.Status, a.body)
			}
			if level == "" && strings.Contains(a.body, "Ask for access") {
				t.Errorf("%s at %s could ask for a port", who, name)
			}
		}
	}
	if a := b.through(b.client(), b.url("photos.blog.s3")+"/"); a.StatusCode != http.StatusUnauthorized || !loginLink.MatchString(a.body) {
		t.Errorf("a stranger: %s", a.Status)
	}
	if a, none := b.through(b.client(), b.url("photos.blog.s3")), b.through(b.client(), b.url("photos.none.s3")); len(a.body) != len(none.body) || a.StatusCode != none.StatusCode {
		t.Errorf("what exists shows:\n%s\n%s", a.body, none.body)
	}
	if a := b.get(b.client(), b.url("photos.blog.s3")+"/"); a.StatusCode != http.StatusForbidden || strings.TrimSpace(a.body) != "no" {
		t.Errorf("a program: %s %s", a.Status, a.body)
	}
}

// A session at a bucket's name is that name's: pages of other buckets, of VMs and of other sites do
// not use it, and it leads to no port.
func TestBucketSessionIsItsOwn(t *testing.T) {
	t.Parallel()
	b := newBucketSite(t)
	b.app(b.blog, 80, echo("blog"))
	c := b.client()
	b.loginAtRoot(c)
	at := b.url("photos.blog.s3")
	if a := b.through(c, at+"/"); a.body != "level=use" {
		t.Fatalf("the owner: %s %s", a.Status, a.body)
	}
	for _, origin := range []string{b.url("blog"), b.url("s3"), b.url("blog.s3"), b.url("other.blog.s3"), b.url("x.photos.blog.s3"), b.root(), "null", "https://evil.example", "http://photos.blog.s3.lodge.localhost"} {
		if a := b.do(c, http.MethodPost, at+"/", strings.NewReader("x"), "Origin", origin); a.StatusCode == http.StatusOK {
			t.Errorf("a page at %s writes: %s", origin, a.body)
		}
		if a := b.get(c, at+"/", "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Referer", origin+"/"); a.StatusCode == http.StatusOK {
			t.Errorf("a page at %s reads: %s", origin, a.body)
		}
	}
	if a := b.do(c, http.MethodPost, at+"/", strings.NewReader("x"), "Origin", at, "Sec-Fetch-Site", "same-origin"); a.body != "level=use" {
		t.Errorf("its own page: %s %s", a.Status, a.body)
	}
	for _, path := range []string{
		"/.lodge/handoff?to=blog.lodge.localhost&for=" + strings.Repeat("0", 64) + "&path=/", "/.lodge/on?at=blog.lodge.localhost&path=/",
		"/.lodge/names?path=/", "/.lodge/join", "/.lodge/login?token=x", "/.lodge/x",
	} {
		if a := b.get(c, at+path, browser()...); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s to %s", path, a.Status, a.Header.Get("Location"))
		}
	}
	b.login(c, b.blog)
	if a := b.get(c, b.url("blog")+"/.lodge/handoff?to=photos.blog.s3.lodge.localhost&for="+strings.Repeat("0", 64)+"&path=/", browser()...); a.StatusCode != http.StatusNotFound {
		t.Errorf("from the VM's page: %s", a.Status)
	}
	if a := b.do(c, http.MethodPost, b.url("blog")+"/", strings.NewReader("x"), "Origin", at); a.StatusCode == http.StatusOK {
		t.Error("a bucket's page writes to the VM's")
	}
	if a := b.get(b.tap(b.blog), "https://photos.blog.s3.lodge.localhost/", browser()...); a.StatusCode != http.StatusForbidden {
		t.Errorf("the VM itself, unsigned: %s", a.Status)
	}
	a := b.get(c, at+"/.lodge/callback?path=//evil.example", browser()...)
	if to := a.Header.Get("Location"); strings.Contains(to, "evil") {
		t.Errorf("redirected to %s", to)
	}
}

// A link to a bucket opens that bucket, in one browser, until it ends; what is open ends with it.
func TestBucketLink(t *testing.T) {
	t.Parallel()
	b := newBucketSite(t)
	b.share(gateway.Link)
	b.change(b.blog, func(m *gateway.VM) { m.Shares = byLink(0) })
	b.app(b.blog, 80, echo("blog"))
	held, made := b.pass(b.blog, gateway.Pass{Kind: gateway.LinkPass, Bucket: "photos"})
	if !strings.HasPrefix(held, b.url("photos.blog.s3")+"/.lodge/link?secret=") {
		t.Fatalf("the link is %s", held)
	}
	elsewhere := strings.Replace(held, "photos.blog.s3", "blog", 1)
	for _, wrong := range []string{elsewhere, strings.Replace(held, "photos", "other", 1), strings.Replace(held, "blog", "shop", 1)} {
		if a := b.openLink(b.client(), wrong); len(a.Cookies()) != 0 {
			t.Errorf("%s: %s", wrong, a.Status)
		}
	}
	page, _ := b.pass(b.blog, gateway.Pass{Kind: gateway.LinkPass})
	if a := b.openLink(b.client(), strings.Replace(page, "blog", "photos.blog.s3", 1)); len(a.Cookies()) != 0 {
		t.Errorf("the page's link opens the bucket: %s", a.Status)
	}
	c := b.client()
	if a := b.openLink(c, held, "Origin", b.url("blog")); a.StatusCode != http.StatusForbidden {
		t.Errorf("by a page of the VM: %s", a.Status)
	}
	if a := b.openLink(c, held); a.StatusCode != http.StatusSeeOther {
		t.Fatalf("the link: %s", a.Status)
	}
	if a := b.get(c, b.url("photos.blog.s3")+"/"); a.body != "level=view" {
		t.Errorf("by the link: %s %s", a.Status, a.body)
	}
	ended := b.openStream(c, b.url("photos.blog.s3")+"/stream")
	gatewaytest.Must(t, b.server.RemovePass(context.Background(), b.blog.ID, gateway.LinkPass, made.ID))
	wantEnded(t, ended)
	if a := b.get(c, b.url("photos.blog.s3")+"/"); a.StatusCode != http.StatusForbidden {
		t.Errorf("after its end: %s", a.Status)
	}
}

func wantEnded(t *testing.T, ended func() error) {
	t.Helper()
	if !errors.Is(ended(), errEnded) {
		t.Error("what is open did not end")
	}
}

// What a change of a share, of a grant or of the people forbids ends at once.
func TestBucketRevoked(t *testing.T) {
	t.Parallel()
	b := newBucketSite(t)
	at := b.url("photos.blog.s3")
	b.share(gateway.People, b.ada.ID)
	b.change(b.blog, func(m *gateway.VM) { m.Grants = m.WithGrant(b.eve.ID, gateway.Use) })
	ada, eve := b.client(), b.client()
	b.loginAtRootAs(ada, b.ada)
	b.loginAtRootAs(eve, b.eve)
	b.through(ada, at+"/")
	b.through(eve, at+"/")
	adas, eves := b.openStream(ada, at+"/stream"), b.openStream(eve, at+"/stream")
	b.share(gateway.Private)
	wantEnded(t, adas)
	b.change(b.blog, func(m *gateway.VM) { m.Grants = m.WithGrant(b.eve.ID, gateway.View) })
	wantEnded(t, eves)
	b.share(gateway.Public)
	anybodys := b.openStream(b.client(), at+"/stream")
	b.share(gateway.People, b.ada.ID)
	wantEnded(t, anybodys)
	adas = b.openStream(ada, at+"/stream")
	_, err := b.people.Remove(t.Context(), b.ada.Mail)
	gatewaytest.Must(t, err)
	wantEnded(t, adas)
	if a := b.get(ada, at+"/"); a.StatusCode != http.StatusForbidden {
		t.Errorf("who is removed: %s", a.Status)
	}
}

// Who loses the right to write to a bucket loses what is under way with it, though the bucket stays
// readable.
func TestBucketWriterBecomesReader(t *testing.T) {
	t.Parallel()
	b := newBucketSite(t)
	at := b.url("photos.blog.s3")
	eve := b.client()
	b.loginAtRootAs(eve, b.eve)
	for name, c := range map[string]struct {
		v    gateway.Visibility
		with []gateway.Principal
	}{"public": {gateway.Public, nil}, "for people": {gateway.People, []gateway.Principal{b.eve.ID, b.ada.ID}}} {
		b.change(b.blog, func(m *gateway.VM) { m.Grants = m.WithGrant(b.eve.ID, gateway.Use) })
		if a := b.through(eve, at+"/"); a.body != "level=use" { // while it is closed, or nobody logs in
			t.Fatalf("%s: %s %s", name, a.Status, a.body)
		}
		b.share(c.v, c.with...)
		writes := b.openStream(eve, at+"/stream")
		b.change(b.blog, func(m *gateway.VM) { m.Grants = m.WithGrant(b.eve.ID, gateway.NoLevel) })
		wantEnded(t, writes)
		reads := b.openStream(eve, at+"/stream")
		if a := b.get(eve, at+"/"); a.body != "level=view" {
			t.Errorf("%s: %s %s", name, a.Status, a.body)
		}
		b.share(gateway.Private)
		wantEnded(t, reads)
	}
}

// Where a session or a visit begins at a bucket's name, nothing is left of earlier pages there; at
// a VM's it stays.
func TestBucketLoginClearsStorage(t *testing.T) {
	t.Parallel()
	b := newBucketSite(t)
	b.share(gateway.Link)
	held, _ := b.pass(b.blog, gateway.Pass{Kind: gateway.LinkPass, Bucket: "photos"})
	if got := b.openLink(b.client(), held).Header.Get("Clear-Site-Data"); got != `"cache", "storage"` {
		t.Errorf("a link: %q", got)
	}
	c := b.client()
	b.loginAtRoot(c)
	var cleared []string
	jar := c.Transport
	c.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
		res, err := jar.RoundTrip(r)
		if err == nil && res.Header.Get("Clear-Site-Data") != "" {
			cleared = append(cleared, r.URL.Hostname()+" "+res.Header.Get("Clear-Site-Data"))
		}
		return res, err
	})
	b.app(b.blog, 80, echo("blog"))
	b.through(c, b.url("photos.blog.s3")+"/")
	b.through(c, b.url("blog")+"/")
	if len(cleared) != 1 || cleared[0] != `photos.blog.s3.lodge.localhost "cache", "storage"` {
		t.Errorf("cleared: %q", cleared)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A logout at a bucket's name, which a website's script can send, ends the session there, and no
// other one.
func TestBucketLogoutIsOfItsName(t *testing.T) {
	t.Parallel()
	b := newBucketSite(t)
	b.app(b.blog, 80, http.HandlerFunc(endless))
	c := b.client()
	b.loginAtRoot(c)
	b.enter(c, "blog")
	at := b.url("photos.blog.s3")
	b.through(c, at+"/")
	b.through(c, b.url("other.blog.s3")+"/")
	here, other, page := b.openStream(c, at+"/stream"), b.openStream(c, b.url("other.blog.s3")+"/stream"), b.openStream(c, b.url("blog"))
	if a := b.logout(c, "photos.blog.s3", "Origin", at); a.StatusCode != http.StatusOK {
		t.Fatalf("logout: %s", a.Status)
	}
	wantEnded(t, here)
	if other() != nil || page() != nil {
		t.Error("what is open elsewhere has ended")
	}
	if a := b.get(c, at+"/"); a.StatusCode != http.StatusForbidden {
		t.Errorf("the session at the name: %s %s", a.Status, a.body)
	}
	if a := b.get(c, b.url("other.blog.s3")+"/"); a.body != "level=use" {
		t.Errorf("another bucket: %s %s", a.Status, a.body)
	}
}
