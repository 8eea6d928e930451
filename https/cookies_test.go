package https_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"lodge/gateway/gatewaytest"
)

func TestAppCannotSetCookiesOfSiblings(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0, 8080)...)
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Set-Cookie"] = []string{r.Header.Get("Set")}
	})
	s.app(blog, 80, app)
	s.app(blog, 8080, app)
	for _, tt := range []struct{ host, set, want string }{
		{"blog", "a=1; Domain=lodge.localhost; Path=/", "a=1; Path=/"},
		{"blog", "a=1; Path=/; domain = .Lodge.Localhost ;Secure", "a=1; Path=/;Secure"},
		{"any.blog", "a=1; DOMAIN=localhost", "a=1"},
		{"blog", "a=1; Domain=lodge.localhost; Domain=lodge.localhost", "a=1"},
		{"8080-blog", "a=1; Domain=shop.lodge.localhost", "a=1"},
		{"blog", "a=1; Domain", "a=1"},
		{"blog", "a=1; Domain=blog.lodge.localhost", "a=1; Domain=blog.lodge.localhost"},
		{"any.blog", "a=1; Domain=.blog.lodge.localhost", "a=1; Domain=.blog.lodge.localhost"},
		{"8080-blog", "a=1; Domain=8080-blog.lodge.localhost", "a=1; Domain=8080-blog.lodge.localhost"},
		{"blog", "Domain=lodge.localhost; Path=/", "Domain=lodge.localhost; Path=/"}, // a cookie of that name
	} {
		if a := s.get(s.client(), s.url(tt.host), "Set", tt.set); a.Header.Get("Set-Cookie") != tt.want {
			t.Errorf("%s sets %q, and the browser is sent %q", tt.host, tt.set, a.Header.Get("Set-Cookie"))
		}
	}
}

func TestTooManyCookiesAreCleared(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, echo("blog"))
	var many []string
	for n := range 180 { // as many as Chromium keeps for a domain
		many = append(many, fmt.Sprintf("toss%d=%s", n, strings.Repeat("x", 4000)))
	}
	for _, http2 := range []bool{true, false} {
		c := s.client()
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = http2
		for _, url := range []string{s.url("blog"), strings.Replace(s.url("x"), "//x.", "//", 1)} {
			if a := s.get(c, url, "Cookie", strings.Join(many, "; ")); a.StatusCode != 431 || a.Header.Get("Clear-Site-Data") != `"cookies"` {
				t.Errorf("HTTP/2 %t, %s: %s, Clear-Site-Data %q", http2, url, a.Status, a.Header.Get("Clear-Site-Data"))
			}
		}
		if a := s.get(c, s.url("blog"), "Cookie", strings.Join(many[:8], "; ")); a.StatusCode != 200 {
			t.Errorf("HTTP/2 %t, 32 kB: %s", http2, a.Status)
		}
		if a := s.get(c, s.url("blog"), "Big", strings.Repeat("x", 128<<10)); a.StatusCode != 431 || a.Header.Get("Clear-Site-Data") != "" {
			t.Errorf("HTTP/2 %t, another huge header: %s, Clear-Site-Data %q", http2, a.Status, a.Header.Get("Clear-Site-Data"))
		}
	}
}

// TestChromiumIsNotLockedOut: a page can set cookies of the whole domain by JavaScript, which no
// gateway sees, so many that no request to a sibling fits.
func TestChromiumIsNotLockedOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	evil, shop := s.vm("evil", public(0)...), s.vm("shop", public(0)...)
	s.app(evil, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<h1>evil</h1><script>
			for (let n = 0; n < 30; n++) document.cookie = "toss" + n + "=" + "x".repeat(4000) + "; Domain=lodge.localhost; Path=/; Secure"
		</script>`))
	}))
	var sent atomic.Int64 // bytes of cookies
	s.app(shop, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Add(int64(len(r.Header.Get("Cookie"))))
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(`<title>shop</title><h1>shop</h1>`))
	}))
	ctx := chromium(t, s)
	visit := func(url string) {
		t.Helper()
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := chromedp.Do(limited, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.CSS("h1"))); err != nil {
			t.Fatalf("%s: %v", url, err)
		}
	}
	visit(s.url("evil"))
	visit(s.url("shop")) // the page that clears the cookies, and then reloads
	gatewaytest.WaitFor(t, "the sibling's page opens", func() bool {
		title, err := chromedp.Run(ctx, chromedp.Title())
		return err == nil && title == "shop"
	})
	if sent.Load() != 0 {
		t.Errorf("the app was sent cookies of %d bytes", sent.Load())
	}
}
