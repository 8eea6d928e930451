package https_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestAppSeesWhoCallsAndNothingElseDoes(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(8080)...)
	s.app(blog, 80, echo("plain"))
	s.app(blog, 8080, echo("port"))
	c := s.client()
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = false // HTTP/2 has no Connection header
	s.login(c, blog)

	forged := []string{
		"X-Lodge-User", "evil", "x-lodge-email", "evil", "X_Lodge_User", "evil", "x_lodge-Vm", "evil", "X-Lodge_Vm", "evil", "X-Lodge", "evil", "X.Lodge.User", "evil", "x~lodge|vm", "evil",
		"X-Forwarded-For", "evil", "X_Forwarded_Proto", "evil", "Forwarded", "for=evil", "X-Real-Ip", "evil", "X_Real_IP", "evil",
		"Remote-User", "evil", "X-Remote-User", "evil", "remote_user", "evil", "True-Client-IP", "evil", "CF-Connecting-IP", "evil", "X-Client-IP", "evil", "X-Original-URL", "evil", "Proxy", "evil",
		"Connection", "X-Lodge-User, X-Forwarded-For, X-Hop", "X-Hop", "evil", "Proxy-Connection", "evil", "Keep-Alive", "evil",
		"Cookie", "a=1; __Host-lodge-handoff=evil; __HOST-LODGE=evil; b=2", "App-Header", "kept",
	}
	a := s.get(c, s.url("blog")+"/x//y%2fz?q=%zz;a", forged...)
	for _, want := range []string{
		"app=plain\n", "uri=/x//y%2fz?q=%zz;a\n", "host=" + strings.TrimPrefix(s.url("blog"), "https://") + "\n",
		"X-Lodge-User: " + owner + "\r\n", "X-Lodge-Email: " + owner + "\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: https\r\n",
		"X-Forwarded-Host: blog.lodge.localhost", "App-Header: kept", "a=1;", "b=2",
	} {
		if !strings.Contains(a.body, want) {
			t.Errorf("the app did not see %q", want)
		}
	}
	for _, not := range []string{"evil", "__Host-lodge"} {
		if strings.Contains(a.body, not) {
			t.Errorf("the app saw %q:\n%s", not, a.body)
		}
	}
	stranger := s.client()
	stranger.Transport.(*http.Transport).ForceAttemptHTTP2 = false // as above
	if a := s.get(stranger, s.url("8080-blog"), forged...); strings.Contains(a.body, "evil") || strings.Contains(a.body, "X-Lodge") {
		t.Errorf("a stranger at a public port:\n%s", a.body)
	}
}

func TestAppCannotSetOurCookies(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Set-Cookie", "__Host-lodge=evil; Path=/; Secure")
		w.Header().Add("Set-Cookie", " __HOST-lodge-handoff =evil; Path=/; Secure")
		w.Header().Add("Set-Cookie", "own=fine")
	}))
	if a := s.get(s.client(), s.url("blog")); !slices.Equal(a.Header.Values("Set-Cookie"), []string{"own=fine"}) {
		t.Errorf("Set-Cookie: %q", a.Header.Values("Set-Cookie"))
	}
}

func TestDefaultPortIsTheFirstThatListens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	c := s.client()
	if a := s.get(c, s.url("blog")); a.StatusCode != http.StatusBadGateway {
		t.Fatalf("nothing listens: %s", a.Status)
	}
	app := s.app(blog, 5000, echo("five"))
	if a := s.get(c, s.url("blog")); !strings.Contains(a.body, "app=five") {
		t.Errorf("the moment something listens: %s", a.Status)
	}
	if port, ok := s.server.Probe(t.Context(), blog); port != 5000 || !ok {
		t.Errorf("Probe = %d, %t", port, ok)
	}
	app.Close()
	s.app(blog, 3000, echo("three"))
	gatewaytest.WaitFor(t, "the page is found at its new port", func() bool {
		return strings.Contains(s.get(c, s.url("blog")).body, "app=three")
	})
	s.app(blog, 80, echo("eighty"))
	gatewaytest.WaitFor(t, "an earlier port of the list wins", func() bool {
		return strings.Contains(s.get(c, s.url("blog")).body, "app=eighty")
	})
}

// TestSmuggling sends bytes that two servers could parse as different numbers of requests. Each
// must be refused, or reach the app as exactly one.
func TestSmuggling(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	var mu sync.Mutex
	var seen []string
	s.app(blog, 80, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a part is enough
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Method+" "+r.URL.Path+" "+string(body))
	}))
	host := "Host: blog.lodge.localhost\r\nConnection: close\r\n"
	for name, request := range map[string]string{
		"both lengths":         "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
		"two lengths":          "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 30\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
		"signed length":        "POST / HTTP/1.1\r\n" + host + "Content-Length: +30\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
		"odd encoding":         "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
		"two encodings":        "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
		"space before colon":   "POST / HTTP/1.1\r\n" + host + "Content-Length : 30\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
		"folded header":        "POST / HTTP/1.1\r\n" + host + "X: a\r\n Transfer-Encoding: chunked\r\n\r\n",
		"line feed in a chunk": "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n30\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: x\r\n\r\n",
		"two hosts":            "GET / HTTP/1.1\r\n" + host + "Host: shop.lodge.localhost\r\n\r\n",
		"absolute form":        "GET https://shop.lodge.localhost/ HTTP/1.1\r\n" + host + "\r\n",
		"control character":    "GET / HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n",
	} {
		c, err := handshake(s, s.addr, "blog.lodge.localhost")
		if err != nil {
			t.Fatal(err)
		}
		got := rawRequest(t, c, request)
		if strings.Count(got, "HTTP/1.1 ") > 1 {
			t.Errorf("%s: answered more than once: %q", name, got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, request := range seen {
		if strings.Contains(request, "GET /evil") && strings.HasPrefix(request, "GET") {
			t.Errorf("the app was given %q", request)
		}
	}
}

// TestNoUpgradeToHTTP2: the proxy strips nothing on an upgraded connection, so it must not carry
// further requests.
func TestNoUpgradeToHTTP2(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(strings.ToLower(r.Header.Get("Upgrade")), "h2c") || r.Header.Get("Http2-Settings") != "" {
			t.Errorf("the app was asked to go on in HTTP/2: %v", r.Header)
		}
		_, _ = io.WriteString(w, "HTTP/1") // the client misses it
	}))
	for _, upgrade := range []string{"h2c", "H2C", "websocket, h2c", "h2c\r\nUpgrade: websocket", "websocket\r\nUpgrade: h2c"} {
		c, err := handshake(s, s.addr, "blog.lodge.localhost")
		if err != nil {
			t.Fatal(err)
		}
		got := rawRequest(t, c, "GET / HTTP/1.1\r\nHost: blog.lodge.localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: "+upgrade+"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Errorf("%q: %q", upgrade, firstLine(got))
		}
	}
}

func TestLimits(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, echo("blog"))
	one := s.client()
	// HTTP/2 ends the connection instead of answering
	one.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	if a := s.get(one, s.url("blog"), "Big", strings.Repeat("x", 128<<10)); a.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("huge header: %s", a.Status)
	}
	c, err := handshake(s, s.addr, "blog.lodge.localhost")
	if err != nil {
		t.Fatal(err)
	}
	if got := rawRequest(t, c, "CONNECT blog.lodge.localhost:22 HTTP/1.1\r\nHost: blog.lodge.localhost:22\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 501") {
		t.Errorf("CONNECT: %q", firstLine(got))
	}
}

func TestShutdownLosesNoRequest(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	started, finish := make(chan struct{}), make(chan struct{})
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-finish
		}
		fmt.Fprint(w, "whole")
	}))
	idle, err := handshake(s, s.addr, "blog.lodge.localhost")
	if err != nil {
		t.Fatal(err)
	}
	request := "GET / HTTP/1.1\r\nHost: blog.lodge.localhost\r\n\r\n"
	answers := bufio.NewReader(idle)
	if res := exchange(t, idle, answers, request); res.Close {
		t.Error("the connection ended before Shutdown")
	}
	slow := make(chan answer, 1)
	go func() { slow <- s.get(s.client(), s.url("blog")+"/slow") }()
	<-started
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		done <- s.server.Shutdown(ctx)
	}()
	gatewaytest.WaitFor(t, "no new connection is taken", func() bool {
		c, err := net.Dial("tcp", s.addr) //nolint:noctx // it fails at once, which is the point
		if err == nil {
			_ = c.Close() // one more try
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if res := exchange(t, idle, answers, request); !res.Close || res.StatusCode != 200 {
		t.Errorf("on an idle connection: %s, close %t", res.Status, res.Close)
	}
	close(finish)
	if a := <-slow; a.body != "whole" {
		t.Errorf("the slow request got %q", a.body)
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func exchange(tb testing.TB, c net.Conn, answers *bufio.Reader, request string) *http.Response {
	tb.Helper()
	if _, err := c.Write([]byte(request)); err != nil {
		tb.Fatal(err)
	}
	res, err := http.ReadResponse(answers, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		tb.Fatal(err)
	}
	_ = res.Body.Close() // read to its end
	return res
}

func TestOldIncarnationIsNotSpokenTo(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(8080)...)
	var conns sync.Map
	s.app(blog, 8080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conns.Store(r.RemoteAddr, true)
		fmt.Fprint(w, r.RemoteAddr)
	}))
	c := s.client()
	first := s.get(c, s.url("8080-blog")).body
	if again := s.get(c, s.url("8080-blog")).body; again != first {
		t.Errorf("the connection to the VM was not kept: %s, %s", first, again)
	}
	if _, err := s.dir.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Incarnation++; return nil }); err != nil {
		t.Fatal(err)
	}
	if after := s.get(c, s.url("8080-blog")).body; after == first {
		t.Error("a connection outlived the VM's start")
	}
}
