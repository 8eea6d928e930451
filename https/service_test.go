package https_test

import (
	"net/http"
	"strings"
	"testing"

	"lodge/https"
)

// A service has its name and all below it, with certificates, whoever asks; nothing else changes.
func TestService(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.Services = map[string]http.Handler{"s3.lodge.localhost": echo("s3")} })
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, echo("blog"))
	for host, app := range map[string]string{
		"s3": "s3", "blog.s3": "s3", "photos.blog.s3": "s3", "my.photos.blog.s3": "s3", "photos.none.s3": "s3",
		"blog": "blog", "s3.blog": "blog", "xs3": "", "s3x": "",
	} {
		for from, c := range map[string]*http.Client{"outside": s.client(), "a tap": s.tap(blog)} {
			target := s.url(host) + "/a//../b%2Fc?x=y"
			if from == "a tap" {
				target = "https://" + host + ".lodge.localhost/a//../b%2Fc?x=y"
			}
			a := s.get(c, target)
			if a.Header.Get("App") != app {
				t.Errorf("%s from %s: %s from %q, want %q", host, from, a.Status, a.Header.Get("App"), app)
			}
			if app == "s3" && !strings.Contains(a.body, "/a//../b%2Fc?x=y") {
				t.Errorf("%s from %s: the service got\n%s", host, from, a.body)
			}
		}
	}
	a := s.get(s.clientVia(s.plain, nil), "http://photos.blog.s3.lodge.localhost/x")
	if got := a.Header.Get("Location"); got != s.url("photos.blog.s3")+"/x" {
		t.Errorf("plain HTTP: %s to %q", a.Status, got)
	}
}

// A page at a service's name is none of a VM's: it may not use a VM's pages with a visitor's session.
func TestServicePagesAreStrangers(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.Services = map[string]http.Handler{"s3.lodge.localhost": echo("s3")} })
	blog := s.vm("blog")
	s.app(blog, 80, echo("blog"))
	c := s.client()
	s.login(c, blog)
	if a := s.get(c, s.url("blog")+"/", "Origin", s.url("blog"), "Sec-Fetch-Site", "same-origin"); a.StatusCode != 200 {
		t.Fatalf("the page's own: %s", a.Status)
	}
	for _, host := range []string{"s3", "blog.s3", "photos.blog.s3"} {
		a := s.do(c, http.MethodPost, s.url("blog")+"/", strings.NewReader("x"), "Origin", s.url(host), "Sec-Fetch-Site", "same-site")
		if a.StatusCode == 200 {
			t.Errorf("a page of %s writes to blog", host)
		}
	}
}
