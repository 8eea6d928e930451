package https_test

import (
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
)

// images finds those of the page that joins names.
var images = regexp.MustCompile(`<img hidden src="([^"]+)"`)

// joinNames does what a browser does with a redirect to the page that joins names: it loads the
// images, then the page that was asked for.
func (s *site) joinNames(c *http.Client, at string, a answer) (string, answer) {
	s.tb.Helper()
	if !strings.HasPrefix(a.Header.Get("Location"), "/.lodge/names?") {
		return at, a
	}
	page, a := s.follow(c, at, a)
	found := images.FindAllStringSubmatch(a.body, -1)
	if a.StatusCode != http.StatusOK || len(found) == 0 {
		s.tb.Fatalf("the page that joins names: %s: %s", a.Status, a.body)
	}
	for _, image := range found {
		if a := s.loadImage(c, html.UnescapeString(image[1]), page); a.StatusCode != http.StatusNoContent {
			s.tb.Errorf("%s: %s: %s", image[1], a.Status, a.body)
		}
	}
	to := mustParse(s.tb, page)
	next := to.Scheme + "://" + to.Host + to.Query().Get("path")
	return next, s.get(c, next, browser()...)
}

// loadImage loads an image of a page, with its redirects.
func (s *site) loadImage(c *http.Client, image, page string) answer {
	s.tb.Helper()
	from := mustParse(s.tb, page)
	header := []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image", "Accept", "image/*"}
	a := s.get(c, image, append(header, "Referer", from.Scheme+"://"+from.Host+"/")...)
	for range 5 {
		if a.StatusCode/100 != 3 {
			break
		}
		to, err := mustParse(s.tb, image).Parse(a.Header.Get("Location"))
		if err != nil {
			s.tb.Fatal(err)
		}
		image = to.String()
		a = s.get(c, image, header...) // the redirects remove the referrer
	}
	return a
}

// script are the headers of a fetch by a page of a host.
func (s *site) script(host string) []string {
	return []string{"Origin", s.url(host), "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}
}

func TestOneLoginCoversAllNamesOfTheVM(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	for _, port := range []uint16{80, 3000, 8001} {
		s.app(blog, port, echo("blog"))
		s.app(shop, port, echo("shop"))
	}
	ann := s.client()
	s.login(ann, blog)
	at := s.url("blog") + "/page?x=1"
	if at, a := s.joinNames(ann, at, s.get(ann, at, browser()...)); a.StatusCode != 200 || !strings.Contains(a.body, "uri=/page?x=1\n") {
		t.Errorf("the page at %s: %s: %s", at, a.Status, a.body)
	}
	for _, host := range []string{"80-blog", "3000-blog", "8001-blog"} {
		if a := s.get(ann, s.url(host), s.script("3000-blog")...); a.StatusCode != 200 || !strings.Contains(a.body, "X-Lodge-User: "+owner) {
			t.Errorf("%s for a script: %s", host, a.Status)
		}
		if a := s.get(ann, s.url(host), s.script("3000-shop")...); a.StatusCode != 403 {
			t.Errorf("%s for a script of another VM: %s", host, a.Status)
		}
	}
	for _, host := range []string{"shop", "3000-shop", "8001-shop"} {
		if a := s.get(ann, s.url(host)); a.StatusCode != 401 {
			t.Errorf("%s: %s", host, a.Status)
		}
	}
	if a := s.get(ann, at, browser()...); a.StatusCode != 200 {
		t.Errorf("the next page: %s to %s", a.Status, a.Header.Get("Location"))
	}
}

// TestNamesThatAppearLater: of a port that came after the login, also one where no one would look.
func TestNamesThatAppearLater(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog")
	s.app(blog, 80, echo("blog"))
	ann := s.client()
	s.login(ann, blog)
	at := s.url("blog") + "/"
	s.joinNames(ann, at, s.get(ann, at, browser()...))
	s.app(blog, 45678, echo("odd"))
	fetch := func(host string) int { return s.get(ann, s.url(host), s.script("blog")...).StatusCode }
	for _, host := range []string{"45678-blog", "any.blog"} {
		if fetch(host) != 401 {
			t.Fatalf("%s before", host)
		}
	}
	if _, a := s.joinNames(ann, at, s.get(ann, at, browser()...)); a.StatusCode != 200 {
		t.Errorf("the page again: %s", a.Status)
	}
	for _, host := range []string{"45678-blog", "any.blog"} {
		if status := fetch(host); status != 200 {
			t.Errorf("%s after the page was loaded again: %d", host, status)
		}
	}
	s.app(blog, 8001, echo("common"))
	gatewaytest.WaitFor(t, "a common port is joined by itself", func() bool {
		s.joinNames(ann, at, s.get(ann, at, browser()...))
		return fetch("8001-blog") == 200
	})
}

func TestJoiningHelpsNobodyElse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog, shop := s.vm("blog"), s.vm("shop")
	for _, port := range []uint16{80, 8001} {
		s.app(blog, port, echo("blog"))
	}
	s.app(shop, 80, echo("shop"))
	ann := s.client()
	s.login(ann, blog)
	join := s.url("8001-blog") + "/.lodge/join"
	for name, a := range map[string]answer{
		"a sibling's page":    s.loadImage(ann, join, s.url("shop")),
		"another site's page": s.loadImage(ann, join, "https://evil.example/"),
		"a stranger":          s.loadImage(s.client(), join, s.url("3000-blog")),
		"the sibling itself":  s.loadImage(s.tap(shop), join, s.url("3000-blog")),
	} {
		if a.StatusCode != 401 && a.StatusCode != 403 {
			t.Errorf("%s: %s", name, a.Status)
		}
	}
	if a := s.get(ann, s.url("8001-blog")); a.StatusCode != 401 {
		t.Errorf("afterwards: %s", a.Status)
	}
	// The page redirects to paths of its own name only.
	for _, path := range []string{"//evil.example/", "https://evil.example/", "/\\evil.example", "/.lodge/names?path=/", "javascript:alert(1)"} {
		if a := s.get(ann, s.url("blog")+"/.lodge/names?path="+path, browser()...); a.StatusCode != 302 || a.Header.Get("Location") != "/" {
			t.Errorf("path %q: %s to %q", path, a.Status, a.Header.Get("Location"))
		}
	}
	// Only names of the VM are joined.

	s.get(s.client(), s.url("x.blog"), s.script("3000-blog")...)
	s.get(s.client(), s.url("x.shop"), s.script("3000-blog")...)
	a := s.get(ann, s.url("blog"), browser()...)
	_, a = s.follow(ann, s.url("blog"), a)
	var hosts []string
	for _, image := range images.FindAllStringSubmatch(a.body, -1) {
		hosts = append(hosts, strings.TrimSuffix(mustParse(t, html.UnescapeString(image[1])).Hostname(), ".lodge.localhost"))
	}
	if slices.Sort(hosts); !slices.Equal(hosts, []string{"80-blog", "8001-blog", "x.blog"}) {
		t.Errorf("joined: %v", hosts)
	}
}
