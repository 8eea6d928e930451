package proxy

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// TestAnswers: what an app sends to the first request, well formed or not, and what its client gets.
// The next request always gets its own answer: no connection in a doubtful state is used again.
func TestAnswers(t *testing.T) {
	const next = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"
	for name, tt := range map[string]struct {
		method string
		answer string
		want   string // "" for any that is no success
		reused bool   // the next request takes the same connection
	}{
		"length":              {answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", want: `200 "hello"`, reused: true},
		"chunks":              {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", want: `200 "hello"`, reused: true},
		"trailers":            {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Sum\r\n\r\n2\r\nhe\r\n0\r\nSum: 1\r\n\r\n", want: `200 "he" map[Sum:[1]]`, reused: true},
		"unannounced trailer": {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\nSum: 1\r\n\r\n", want: `200 "he" map[Sum:[1]]`, reused: true},
		"until the end":       {answer: "HTTP/1.1 200 OK\r\n\r\nhello", want: `200 "hello"`},
		"HTTP/1.0":            {answer: "HTTP/1.0 200 OK\r\n\r\nhello", want: `200 "hello"`},
		"HTTP/1.0, kept":      {answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", want: `200 "hello"`, reused: true},
		"close":               {answer: "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", want: `200 "hello"`},
		"head":                {method: "HEAD", answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", want: `200 ""`, reused: true},
		"204":                 {answer: "HTTP/1.1 204 No Content\r\n\r\n", want: `204 ""`, reused: true},
		"304":                 {answer: "HTTP/1.1 304 Not Modified\r\nEtag: a\r\n\r\n", want: `304 ""`, reused: true},
		"103":                 {answer: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhe", want: `200 "he"`, reused: true},
		"100, unasked":        {answer: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhe", want: `200 "he"`, reused: true},

		"garbage":           {answer: "SSH-2.0-OpenSSH\r\n"},
		"two lengths":       {answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"},
		"length and chunks": {answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", want: `200 "hello"`},
		"cut body":          {answer: "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", want: `200 "hello" cut`},
		"cut chunks":        {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", want: `200 "hello" cut`},
		"bad chunk":         {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", want: `200 "hello" cut`},
		"cut header":        {answer: "HTTP/1.1 200 OK\r\nContent-Le"},
		"300 KiB header":    {answer: "HTTP/1.1 200 OK\r\nBig: " + strings.Repeat("x", 300<<10) + "\r\n\r\n"},
		"unasked 101":       {answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"},
		"poison":            {answer: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", want: `200 "hello"`},
		"poison after head": {method: "HEAD", answer: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", want: `200 ""`},
		"poison, chunks":    {answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", want: `200 ""`},
	} {
		t.Run(name, func(t *testing.T) {
			for way, pick := range bothRoads() {
				t.Run(way, func(t *testing.T) {
					cut := strings.Contains(name, "cut") || strings.Contains(name, "until") || name == "HTTP/1.0" || name == "garbage"
					f := newFront(t, pick, rawApp(t, func(c net.Conn, in *bufio.Reader) {
						for {
							r, ok := readRequest(in)
							switch {
							case !ok:
								return
							case r.URL.Path == "/next":
								_, _ = io.WriteString(c, next)
								continue
							}
							_, _ = io.WriteString(c, tt.answer)
							if cut {
								return
							}
						}
					}))
					got := f.do(t, tt.method, "/first", nil)
					if tt.want == "" && !strings.HasPrefix(got, "502") || tt.want != "" && got != tt.want {
						t.Errorf("got %s, want %s", got, tt.want)
					}
					if strings.Contains(name, "poison") && way == "reverse" {
						return // net/http looks at an idle connection a moment too late
					}
					if got := f.do(t, "GET", "/next", nil); got != `200 "next"` {
						t.Errorf("the next request got %s", got)
					}
					if reused := f.dials.Load() == 1; reused != tt.reused && name != "length and chunks" { // net/http removes the length
						t.Errorf("reused: %t", reused)
					}
				})
			}
		})
	}
}

// FuzzAnswers: whatever an app sends in place of an answer, or after one, the next request gets its
// own answer.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		"", "garbage", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
		"HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nhello", "\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	var answer atomic.Pointer[[]byte]
	over := newFront(f, func(p *Proxy) road { return p.exchange }, rawApp(f, func(c net.Conn, in *bufio.Reader) {
		for {
			r, ok := readRequest(in)
			switch {
			case !ok:
				return
			case r.URL.Path == "/next":
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")
				continue
			}
			_, _ = c.Write(*answer.Load())
			if r.URL.Path == "/cut" {
				return
			}
		}
	}))
	f.Fuzz(func(t *testing.T, data []byte) {
		answer.Store(&data)
		over.do(t, "GET", "/cut", nil)
		if got := over.do(t, "GET", "/next", nil); got != `200 "next"` {
			t.Errorf("after that answer: %s", got)
		}
		whole := append([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), data...)
		answer.Store(&whole)
		if got := over.do(t, "GET", "/whole", nil); got != `200 "hello"` {
			t.Errorf("with that after the answer: %s", got)
		}
		if got := over.do(t, "GET", "/next", nil); got != `200 "next"` {
			t.Errorf("with that after the answer, the next: %s", got)
		}
	})
}

// TestManyInformationalAnswers: five pass, three hundred do not.
func TestManyInformationalAnswers(t *testing.T) {
	f := newFront(t, func(p *Proxy) road { return p.exchange }, rawApp(t, func(c net.Conn, in *bufio.Reader) {
		for {
			r, ok := readRequest(in)
			if !ok {
				return
			}
			n := map[string]int{"/5": max1xx, "/300": 300}[r.URL.Path]
			_, _ = io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", n)+"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}))
	if five, many, after := f.do(t, "GET", "/5", nil), f.do(t, "GET", "/300", nil), f.do(t, "GET", "/", nil); five != `200 ""` || many != `502 ""` || after != `200 ""` {
		t.Errorf("5: %s; 300: %s; then: %s", five, many, after)
	}
}
