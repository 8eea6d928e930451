package https_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway/gatewaytest"
)

// eachHTTP returns a client of HTTP/1.1 and one of HTTP/2, which have got blog's page.
func (s *site) eachHTTP() map[string]*http.Client {
	s.tb.Helper()
	clients := map[string]*http.Client{}
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		c := s.client()
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = proto == "HTTP/2.0"
		if a := s.get(c, s.url("blog")+"/"); a.Proto != proto {
			s.tb.Fatalf("the client uses %s, want %s", a.Proto, proto)
		}
		clients[proto] = c
	}
	return clients
}

// Ranges are the app's: the gateway answers none itself, and changes none.
func TestRanges(t *testing.T) {
	s := newSite(t)
	content := bytes.Repeat([]byte("0123456789"), 10_000)
	s.app(s.vm("blog", public(0)...), 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"one"`)
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(content))
	}))
	for proto, c := range s.eachHTTP() {
		t.Run(proto, func(t *testing.T) {
			for _, tt := range []struct {
				header []string
				status int
				ranges string // Content-Range, or the start of Content-Type
				body   string
			}{
				{nil, 200, "", string(content)},
				{[]string{"Range", "bytes=5-8"}, 206, "bytes 5-8/100000", "5678"},
				{[]string{"Range", "bytes=-3"}, 206, "bytes 99997-99999/100000", "789"},
				{[]string{"Range", "bytes=99998-"}, 206, "bytes 99998-99999/100000", "89"},
				{[]string{"Range", "bytes=5-8", "If-Range", `"one"`}, 206, "bytes 5-8/100000", "5678"},
				{[]string{"Range", "bytes=5-8", "If-Range", `"two"`}, 200, "", string(content)},
				{[]string{"Range", "bytes=100000-"}, 416, "bytes */100000", "invalid range: failed to overlap\n"},
				{[]string{"If-None-Match", `"one"`}, 304, "", ""},
			} {
				a := s.get(c, s.url("blog")+"/file", tt.header...)
				if a.StatusCode != tt.status || a.Header.Get("Content-Range") != tt.ranges || a.body != tt.body {
					t.Errorf("%v: %s, Content-Range %q, %d bytes", tt.header, a.Status, a.Header.Get("Content-Range"), len(a.body))
				}
			}
			a := s.get(c, s.url("blog")+"/file", "Range", "bytes=0-1,5-6")
			if kind := a.Header.Get("Content-Type"); a.StatusCode != 206 || !strings.HasPrefix(kind, "multipart/byteranges; boundary=") ||
				!strings.Contains(a.body, "\r\n\r\n01\r\n") || !strings.Contains(a.body, "\r\n\r\n56\r\n") {
				t.Errorf("two ranges: %s, %s\n%s", a.Status, kind, a.body)
			}
		})
	}
}

// Each interim response (RFC 8297) arrives before the next one is made.
func TestEarlyHints(t *testing.T) {
	s := newSite(t)
	hinted := make(chan struct{})
	s.app(s.vm("blog", public(0)...), 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/hints" {
			return
		}
		for _, link := range []string{"</a.css>; rel=preload", "</b.js>; rel=preload"} {
			w.Header().Set("Link", link)
			w.WriteHeader(http.StatusEarlyHints)
			<-hinted
		}
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "page") // the test reads it
	}))
	for proto, c := range s.eachHTTP() {
		t.Run(proto, func(t *testing.T) {
			var links []string
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
					links = append(links, fmt.Sprint(code, " ", header.Get("Link")))
					hinted <- struct{}{}
					return nil
				},
			})
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("blog")+"/hints", nil)
			gatewaytest.Must(t, err)
			res, err := c.Do(r)
			gatewaytest.Must(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			want := []string{"103 </a.css>; rel=preload", "103 </b.js>; rel=preload"}
			if diff := cmp.Diff(want, links); diff != "" || err != nil || string(body) != "page" || res.Header.Get("Link") != "" {
				t.Errorf("%v, %q, Link %q (-want +got):\n%s", err, body, res.Header.Get("Link"), diff)
			}
		})
	}
}

// Trailers pass both ways, announced or not, and cannot carry an identity.
func TestTrailersBothWays(t *testing.T) {
	s := newSite(t)
	s.app(s.vm("blog", public(0)...), 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Announced")
		_, _ = io.Copy(w, r.Body) // the test reads it
		w.Header().Set("Announced", "yes")
		w.Header().Set(http.TrailerPrefix+"Sudden", "too")
		w.Header().Set(http.TrailerPrefix+"Seen", fmt.Sprint(r.Trailer))
	}))
	for proto, c := range s.eachHTTP() {
		t.Run(proto, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("blog")+"/", io.NopCloser(strings.NewReader("body")))
			gatewaytest.Must(t, err)
			r.Trailer = http.Header{"Digest": {"right"}, "X-Lodge-User": {"evil"}}
			res, err := c.Do(r)
			gatewaytest.Must(t, err)
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			want := http.Header{"Announced": {"yes"}, "Sudden": {"too"}, "Seen": {"map[Digest:[right]]"}}
			if diff := cmp.Diff(want, res.Trailer); diff != "" || err != nil || string(body) != "body" {
				t.Errorf("%q, %v (-want +got):\n%s", body, err, diff)
			}
		})
	}
}
