package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/https/access"
)

// road is one of the two ways through a Proxy.
type road func(http.ResponseWriter, *http.Request, Target, access.Visitor) error

// bothRoads has the choice of either.
func bothRoads() map[string]func(*Proxy) road {
	return map[string]func(*Proxy) road{
		"exchange": func(p *Proxy) road { return p.exchange },
		"reverse":  func(p *Proxy) road { return p.reverse },
	}
}

// front is a server that passes everything on to an app over one road.
type front struct {
	*httptest.Server
	proxy *Proxy
	dials atomic.Int64
}

func newFront(tb testing.TB, pick func(*Proxy) road, app net.Addr) *front {
	tb.Helper()
	f := new(front)
	f.proxy = New(Config{
		Dial: func(ctx context.Context, _ gateway.VM, _ uint16) (net.Conn, error) {
			f.dials.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", app.String())
		},
		OnResponse: func(*http.Response) {}, Logger: slog.New(slog.DiscardHandler),
	})
	way := pick(f.proxy)
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := way(w, r, Target{VM: gateway.VM{Identity: gateway.Identity{ID: gateway.ID{1}}}, Port: 80}, access.Visitor{Person: 1, Mail: "ann@example.org"})
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	f.EnableHTTP2 = true
	f.StartTLS()
	f.Client().Transport.(*http.Transport).DisableCompression = true
	tb.Cleanup(func() {
		f.Close()
		f.proxy.Close()
	})
	return f
}

// do sends one request, and returns the answer as text; "cut" at its end means that it is incomplete.
func (f *front) do(tb testing.TB, method, path string, body io.Reader, header ...string) string {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), method, f.URL+path, body)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := f.Client().Do(r)
	if err != nil {
		return "no answer"
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	text := fmt.Sprintf("%d %q", res.StatusCode, got)
	if len(res.Trailer) > 0 {
		text += fmt.Sprint(" ", res.Trailer)
	}
	if err != nil {
		text += " cut"
	}
	return text
}

// rawApp answers each connection with serve.
func rawApp(tb testing.TB, serve func(net.Conn, *bufio.Reader)) net.Addr {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	return l.Addr()
}

// readRequest reads a request as an app does. It is false when the connection ends.
func readRequest(in *bufio.Reader) (*http.Request, bool) {
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil, false
	}
	_, _ = io.Copy(io.Discard, r.Body) // the next request follows it
	return r, true
}

// TestRoadsSendTheSame compares, byte by byte, what both roads send to the app.
func TestRoadsSendTheSame(t *testing.T) {
	for name, tt := range map[string]struct {
		method, path string
		body         io.Reader
		header       []string
	}{
		"plain":          {method: "GET", path: "/x//y%2fz?q=%zz;a"},
		"head":           {method: "HEAD", path: "/"},
		"odd method":     {method: "PROPFIND", path: "/"},
		"no body":        {method: "POST", path: "/"},
		"length":         {method: "POST", path: "/", body: strings.NewReader("hello")},
		"chunks":         {method: "PUT", path: "/", body: io.MultiReader(strings.NewReader("hello"))},
		"no user agent":  {method: "GET", path: "/", header: []string{"User-Agent", ""}},
		"forged":         {method: "GET", path: "/", header: []string{"X-Lodge-User", "evil", "X_lodge-Vm", "evil", "Forwarded", "evil", "X-Forwarded-For", "evil", "X-Real-Ip", "evil"}},
		"hop by hop":     {method: "GET", path: "/", header: []string{"Te", "gzip, trailers", "Keep-Alive", "1", "Proxy-Authorization", "x", "Http2-Settings", "x"}},
		"connection":     {method: "GET", path: "/", header: []string{"Connection", "X-Hop, close", "X-Hop", "1"}},
		"cookies":        {method: "GET", path: "/", header: []string{"Cookie", "a=1; __Host-lodge=secret; b=2", "Cookie", "c=3"}},
		"several values": {method: "GET", path: "/", header: []string{"A", "1", "A", "2", "a", "3"}},
	} {
		for _, http2 := range []bool{true, false} {
			sent := map[string]string{}
			if http2 && (slices.Contains(tt.header, "Connection") || slices.Contains(tt.header, "Keep-Alive")) { // HTTP/2 has none
				continue
			}
			for way, pick := range bothRoads() {
				seen := make(chan string, 1)
				f := newFront(t, pick, rawApp(t, func(c net.Conn, in *bufio.Reader) {
					var text bytes.Buffer
					r, ok := readRequest(bufio.NewReader(io.TeeReader(in, &text)))
					if ok {
						seen <- text.String()
						fmt.Fprintf(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\nMethod: %s\r\n\r\n", r.Method)
					}
				}))
				f.Client().Transport.(*http.Transport).ForceAttemptHTTP2 = http2
				body := tt.body
				if s, ok := body.(io.Seeker); ok {
					s.Seek(0, io.SeekStart)
				} else if body != nil {
					body = io.MultiReader(strings.NewReader("hello"))
				}
				if got := f.do(t, tt.method, tt.path, body, tt.header...); got != `204 ""` {
					t.Fatalf("%s: %s", name, got)
				}
				sent[way] = strings.ReplaceAll(<-seen, f.Listener.Addr().String(), "HOST")
			}
			if diff := cmp.Diff(sent["reverse"], sent["exchange"]); diff != "" || strings.Contains(sent["exchange"], "evil") || strings.Contains(sent["exchange"], "secret") {
				t.Errorf("%s, HTTP/2 %t (-reverse +exchange):\n%s", name, http2, diff)
			}
		}
	}
}

// dial opens a connection for HTTP/1.1.
func (f *front) dial(tb testing.TB) net.Conn {
	tb.Helper()
	config := f.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos, config.ServerName = []string{"http/1.1"}, "example.com" // of httptest's certificate
	c, err := (&tls.Dialer{Config: config}).DialContext(tb.Context(), "tcp", f.Listener.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}
