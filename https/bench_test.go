package https_test

import (
	"context"
	"io"
	"net/http"
	"testing"
)

// BenchmarkRequest compares a request through the proxy, with HTTP/1.1 and HTTP/2, to a direct
// request to the app.
func BenchmarkRequest(b *testing.B) {
	s := newSite(b)
	blog := s.vm("blog", public(8080)...)
	private := s.vm("private")
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	app := s.app(blog, 8080, hello)
	s.app(private, 80, hello)
	h2, h1, session := s.client(), s.client(), s.client()
	h1.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	for _, c := range []*http.Client{h1, h2, session} {
		c.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	}
	s.login(session, private)
	direct := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	for _, bb := range []struct {
		name   string
		client *http.Client
		url    string
	}{
		{"direct", direct, app.URL}, {"http1", h1, s.url("8080-blog")}, {"http2", h2, s.url("8080-blog")}, {"session", session, s.url("private")},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					fetch(b, bb.client, bb.url)
				}
			})
		})
	}
}

func fetch(b *testing.B, c *http.Client, url string) {
	b.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		b.Error(err)
		return
	}
	res, err := c.Do(r)
	if err != nil {
		b.Error(err)
		return
	}
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != "hello" {
		b.Errorf("%s: %q %v", res.Status, got, err)
	}
	_ = res.Body.Close() // read to its end
}

// BenchmarkHandshake measures a new connection with a cached certificate.
func BenchmarkHandshake(b *testing.B) {
	s := newSite(b)
	s.vm("blog")
	for b.Loop() {
		c, err := handshake(s, s.addr, "blog.lodge.localhost")
		if err != nil {
			b.Fatal(err)
		}
		_ = c.Close() // done with it
	}
}
