package https_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// Inside a VM the guests' domain has the same pages as the public one, under the same rules.
func TestPagesInTheGuestsDomain(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.Inside = map[string]http.Handler{"s3.lodge.internal": echo("s3")} })
	blog, shop := s.vm("blog", public(8080)...), s.vm("shop")
	for _, port := range []uint16{80, 8080, 9090} {
		s.app(blog, port, echo("blog"))
		s.app(shop, port, echo("shop"))
	}
	fromBlog, fromShop := s.tap(blog), s.tap(shop)
	tests := []struct {
		client *http.Client
		host   string
		want   int
		app    string
	}{
		{fromBlog, "blog", 200, "blog"},
		{fromBlog, "9090-blog", 200, "blog"},
		{fromBlog, "any.blog", 200, "blog"},
		{fromShop, "shop", 200, "shop"},
		{fromShop, "8080-blog", 200, "blog"},
		{fromShop, "blog", 403, ""},
		{fromShop, "9090-blog", 403, ""},
		{fromShop, "any.blog", 403, ""},
		{fromBlog, "shop", 403, ""},
		{fromBlog, "8080-shop", 403, ""},
		{fromBlog, "s3", 200, "s3"},
		{fromBlog, "blog.s3", 200, "s3"},
	}
	for _, tt := range tests {
		host := tt.host + ".lodge.internal"
		a := s.get(tt.client, "https://"+host+"/", "X-Lodge-Vm", "forged")
		if a.StatusCode != tt.want || a.Header.Get("App") != tt.app {
			t.Errorf("%s: %s from %q, want %d from %q: %s", host, a.Status, a.Header.Get("App"), tt.want, tt.app, a.body)
		}
		if caller := map[*http.Client]string{fromBlog: "blog", fromShop: "shop"}[tt.client]; a.StatusCode == 200 && tt.app != "s3" &&
			(!strings.Contains(a.body, "X-Lodge-Vm: "+caller+"\r\n") || !strings.Contains(a.body, "host="+host+"\n")) {
			t.Errorf("%s: the app got\n%s", host, a.body)
		}
	}
}

// The guests' domain has no login: nobody gets a session there, and what a page of it links to is in
// the public domain.
func TestNoLoginInTheGuestsDomain(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	for _, path := range []string{"login?token=x", "handoff?to=blog.lodge.localhost&for=x&path=/", "callback?code=x&path=/"} {
		a := s.get(s.tap(blog), "https://blog.lodge.internal/.lodge/"+path, browser()...)
		if a.StatusCode != 403 || a.Header.Get("Set-Cookie") != "" || a.Header.Get("Location") != "" {
			t.Errorf("%s: %s %v", path, a.Status, a.Header)
		}
	}
	if link := s.link(blog); !strings.HasPrefix(link, s.url("blog")+"/") {
		t.Errorf("the link leads to %s", link)
	}
}

// On taps plain HTTP leads to https at port 443, whatever port people reach; names that are no VM's
// are another handler's.
func TestPlainHTTPOnTaps(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog")
	s.vm("shop")
	plain := httptest.NewUnstartedServer(s.server.RedirectPages(echo("metadata")))
	plain.Listener = gatewaytest.Listener(plain.Listener, blog.Identity)
	plain.Config.ConnContext = gateway.ConnContext
	plain.Start()
	t.Cleanup(plain.Close)
	c := s.clientVia(plain.Listener.Addr().String(), nil)
	for host, want := range map[string]string{
		"blog.lodge.internal": "https://blog.lodge.internal/x?y", "8080-shop.lodge.internal": "https://8080-shop.lodge.internal/x?y",
		"shop.lodge.localhost": "https://shop.lodge.localhost/x?y", "169.254.169.254": "", "metadata.lodge.internal": "", "lodge.internal": "",
		"absent.lodge.internal": "", "example.org": "",
	} {
		a := s.get(c, "http://"+host+"/x?y")
		if got := a.Header.Get("Location"); got != want || (want == "") != (a.Header.Get("App") == "metadata") {
			t.Errorf("%s: %s to %q, want %q", host, a.Status, got, want)
		}
	}
}
