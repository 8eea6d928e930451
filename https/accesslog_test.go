package https_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
	"lodge/https"
)

// accessLine waits for the line of one path, and returns it.
func (s *site) accessLine(path string) string {
	s.tb.Helper()
	var line string
	gatewaytest.Eventually(s.tb, func() error { // it is written after the response
		for one := range strings.Lines(s.log.String()) {
			if strings.Contains(one, `msg="web request served"`) && strings.Contains(one, " path="+path+" ") {
				line = one
				return nil
			}
		}
		return fmt.Errorf("no line for %s", path)
	})
	return line
}

func TestAccessLog(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.AccessLog = true })
	blog := s.vm("blog", public(8080)...)
	s.app(blog, 8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/made":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusCreated)
		case strings.HasPrefix(r.URL.Path, "/cut"):
			w.Header().Set("Content-Length", "100")
		}
		_, _ = io.WriteString(w, "hello")
	}))
	c := s.client()
	s.login(c, blog)
	s.get(c, s.url("8080-blog")+"/ok?token=secret1", "Cookie", "secret2=x")
	s.do(c, http.MethodPost, s.url("8080-blog")+"/made", strings.NewReader("secret3"))
	s.get(s.client(), s.url("blog")+"/private?a=secret1")
	s.get(s.clientVia(s.plain, nil), "http://blog.lodge.localhost/moved?a=secret1")
	cut, err := c.Get(s.url("8080-blog") + "/cut") //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(cut.Body) // it breaks off
	_ = cut.Body.Close()
	for path, want := range map[string]string{
		"/ok":           `vm=blog method=GET host=8080-blog.lodge.localhost path=/ok status=200 bytes=5 duration=`,
		"/made":         `vm=blog method=POST host=8080-blog.lodge.localhost path=/made status=201 bytes=5 duration=`,
		"/private":      `vm=blog method=GET host=blog.lodge.localhost path=/private status=401 `,
		"/moved":        `vm=blog method=GET host=blog.lodge.localhost path=/moved status=308 bytes=0 `,
		"/cut":          `path=/cut status=200 bytes=5 `,
		"/.lodge/login": `path=/.lodge/login status=303 bytes=0 `,
	} {
		line := s.accessLine(path)
		if !strings.Contains(line, want) || !strings.Contains(line, " remote=127.0.0.1:") {
			t.Errorf("got %s, want %s", line, want)
		}
	}
	for _, secret := range []string{"secret", "token", "?"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, s.log)
		}
	}
}

// TestAccessLogOfWebSocket: the connection leaves HTTP, through the writer that counts.
func TestAccessLogOfWebSocket(t *testing.T) {
	s := newSite(t, func(c *https.Config) { c.AccessLog = true })
	s.app(s.vm("blog", public(0)...), 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_, _ = io.WriteString(c, "bye") // the test reads it
			_ = c.Close()                   // as above
		}
	}))
	c, err := handshake(s, s.addr, "blog.lodge.localhost")
	if err != nil {
		t.Fatal(err)
	}
	got := rawRequest(t, c, "GET /socket HTTP/1.1\r\nHost: blog.lodge.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 101") || !strings.HasSuffix(got, "bye") {
		t.Errorf("got %q", got)
	}
	_ = c.Close() // until then the connection is under way
	if line := s.accessLine("/socket"); !strings.Contains(line, "status=101 ") {
		t.Errorf("got %s", line)
	}
}

func TestNoAccessLogByDefault(t *testing.T) {
	s := newSite(t)
	s.app(s.vm("blog", public(0)...), 80, echo("blog"))
	s.get(s.client(), s.url("blog"))
	if strings.Contains(s.log.String(), "web request served") {
		t.Errorf("logged:\n%s", s.log)
	}
}
