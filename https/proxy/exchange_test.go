package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestRetry: an app closes a connection that it had kept open, in the moment of a request. Only
// requests that may be carried out twice are sent again, and only when no answer had begun.
func TestRetry(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		body   string
		answer string // of the app before it closes
		retry  bool
	}{
		"get":         {method: "GET", retry: true},
		"head":        {method: "HEAD", retry: true},
		"put":         {method: "PUT", retry: true},
		"delete":      {method: "DELETE", retry: true},
		"post":        {method: "POST"},
		"patch":       {method: "PATCH"},
		"put, body":   {method: "PUT", body: "hello"},
		"begun":       {method: "GET", answer: "HTTP/1.1 2"},
		"odd methods": {method: "PROPFIND"},
	} {
		var seen atomic.Int64
		f := newFront(t, func(p *Proxy) road { return p.exchange }, rawApp(t, func(c net.Conn, in *bufio.Reader) {
			for {
				r, ok := readRequest(in)
				if !ok {
					return
				}
				if r.URL.Path == "/second" && seen.Add(1) == 1 {
					_, _ = io.WriteString(c, tt.answer)
					return // closes
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}))
		if got := f.do(t, "GET", "/first", nil); got != `200 ""` {
			t.Fatal(got)
		}
		var body io.Reader
		if tt.body != "" {
			body = strings.NewReader(tt.body)
		}
		want, times := `502 ""`, int64(1)
		if tt.retry {
			want, times = `200 ""`, 2
		}
		if got := f.do(t, tt.method, "/second", body); got != want || seen.Load() != times {
			t.Errorf("%s: %s, sent %d times; want %s", name, got, seen.Load(), want)
		}
	}
}

// TestDeadIdleConnection: a connection that the app has closed is not used, not even for a request
// that cannot be sent again.
func TestDeadIdleConnection(t *testing.T) {
	closed := make(chan struct{}, 2)
	f := newFront(t, func(p *Proxy) road { return p.exchange }, rawApp(t, func(c net.Conn, in *bufio.Reader) {
		if _, ok := readRequest(in); ok {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		c.Close()
		closed <- struct{}{}
	}))
	for range 2 {
		if got := f.do(t, "POST", "/", strings.NewReader("x")); got != `200 ""` {
			t.Error(got)
		}
		<-closed
	}
}

// TestClientGoes: the app learns that its client has gone.
func TestClientGoes(t *testing.T) {
	for way, pick := range bothRoads() {
		t.Run(way, func(t *testing.T) {
			for _, answer := range []string{"", "HTTP/1.1 200 OK\r\n\r\nbegun"} {
				asked, gone := make(chan struct{}), make(chan struct{})
				f := newFront(t, pick, rawApp(t, func(c net.Conn, in *bufio.Reader) {
					readRequest(in)
					_, _ = io.WriteString(c, answer)
					close(asked)
					_, _ = in.ReadByte() // until the connection ends
					close(gone)
				}))
				ctx, cancel := context.WithCancel(t.Context())
				r, _ := http.NewRequestWithContext(ctx, http.MethodGet, f.URL, nil)
				go func() {
					if res, err := f.Client().Do(r); err == nil {
						_, _ = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
				}()
				<-asked
				cancel()
				<-gone
			}
		})
	}
}

// TestEarlyAnswer: the app answers while the client still sends, and both directions stream.
func TestEarlyAnswer(t *testing.T) {
	for way, pick := range bothRoads() {
		t.Run(way, func(t *testing.T) {
			app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				control := http.NewResponseController(w)
				_ = control.EnableFullDuplex()
				if r.URL.Path == "/refuse" {
					w.WriteHeader(http.StatusRequestEntityTooLarge)
					return
				}
				buf := make([]byte, 16)
				for {
					n, err := r.Body.Read(buf)
					_, _ = w.Write(buf[:n])
					_ = control.Flush()
					if err != nil {
						return
					}
				}
			}))
			t.Cleanup(app.Close)
			f := newFront(t, pick, app.Listener.Addr())
			body, send := io.Pipe()
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL+"/echo", body)
			go io.WriteString(send, "one")
			res, err := f.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got := make([]byte, 3)
			for _, word := range []string{"one", "two"} {
				if word == "two" {
					go io.WriteString(send, word)
				}
				if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != word {
					t.Fatalf("%q, %v", got, err)
				}
			}
			send.Close()
			if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
				t.Errorf("rest %q, %v", rest, err)
			}
			endless, stop := io.Pipe()
			defer stop.Close()
			r, _ = http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL+"/refuse", endless)
			go io.WriteString(stop, "begun")
			refused, err := f.Client().Do(r)
			if err != nil || refused.StatusCode != http.StatusRequestEntityTooLarge {
				t.Fatalf("refused: %v, %v", refused, err)
			}
			refused.Body.Close()
		})
	}
}

// TestBrokenUpload: the app never gets a request that a client did not complete as a complete one,
// and the client's fault does not wait for the app.
func TestBrokenUpload(t *testing.T) {
	for way, pick := range bothRoads() {
		t.Run(way, func(t *testing.T) {
			result := make(chan error, 1)
			f := newFront(t, pick, rawApp(t, func(_ net.Conn, in *bufio.Reader) {
				r, err := http.ReadRequest(in)
				if err == nil {
					_, err = io.Copy(io.Discard, r.Body)
				}
				result <- err
			}))
			c := f.dial(t)
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || res.StatusCode != http.StatusBadGateway {
				t.Fatalf("%v, %v", res, err)
			}
			res.Body.Close()
			if err := <-result; !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the app read a body with %v", err)
			}
		})
	}
}

// TestRoadOfRequests: only requests that need nothing else of the connection take the short road.
func TestRoadOfRequests(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		header http.Header
		plain  bool
	}{
		"get":          {http.MethodGet, nil, true},
		"post":         {http.MethodPost, http.Header{"Content-Type": {"application/json"}}, true},
		"trailers":     {http.MethodPost, http.Header{"Te": {"trailers"}}, true},
		"WebSocket":    {http.MethodGet, http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, false},
		"100-continue": {http.MethodPut, http.Header{"Expect": {"100-continue"}}, false},
		"gRPC":         {http.MethodPost, http.Header{"Content-Type": {"application/grpc+proto"}}, false},
		"tunnel":       {http.MethodConnect, nil, false},
	} {
		if got := isPlain(&http.Request{Method: tt.method, Header: tt.header}); got != tt.plain {
			t.Errorf("%s: %t, want %t", name, got, tt.plain)
		}
	}
}
