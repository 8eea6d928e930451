package https_test

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
)

func TestWebSocketEcho(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") == "" {
			t.Errorf("the app was not asked for a WebSocket: %v", r.Header)
		}
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.WriteHeader(http.StatusSwitchingProtocols)
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(c, buffered) // until the client hangs up
		_ = c.Close()               // as above
	}))
	c, err := handshake(s, s.addr, "blog.lodge.localhost")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /socket HTTP/1.1\r\nHost: blog.lodge.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	answers := bufio.NewReader(c)
	res, err := http.ReadResponse(answers, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v %v", res, err)
	}
	_ = res.Body.Close() // a 101 has none
	for _, frame := range []string{"\x81\x02hi", "\x82\x03\x00\xff\x00"} {
		if _, err := c.Write([]byte(frame)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(frame))
		if _, err := io.ReadFull(answers, got); err != nil || string(got) != frame {
			t.Errorf("echo of %q: %q, %v", frame, got, err)
		}
	}
}

func TestEventsArriveOneByOne(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	next := make(chan string)
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for event := range next {
			fmt.Fprintf(w, "data: %s\n\n", event)
			_ = http.NewResponseController(w).Flush() // the test sees whether it arrives
		}
	}))
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("blog"), nil) // well formed
	opened := make(chan *http.Response, 1)
	go func() {
		res, err := s.client().Do(r)
		if err != nil {
			t.Error(err)
		}
		opened <- res
	}()
	next <- "first"
	res := <-opened
	if res == nil {
		return
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for i, event := range []string{"first", "second", "third"} {
		if i > 0 {
			next <- event
		}
		if !lines.Scan() || lines.Text() != "data: "+event || !lines.Scan() {
			t.Fatalf("event %q: got %q, %v", event, lines.Text(), lines.Err())
		}
	}
	close(next)
}

var uploadBytes = flag.Int64("upload", 128<<20, "bytes that the test of large bodies uploads")

// A body streams in bounded memory, over both protocols: the heap grows by a part of it at most.
func TestLargeBodiesStreamInBoundedMemory(t *testing.T) {
	const growth = 64 << 20 // garbage included
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC() // what other tests have left
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	var peak uint64
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			return
		}
		sum, n := sha256.New(), int64(0)
		for {
			some, err := io.CopyN(sum, r.Body, 32<<20)
			n, peak = n+some, max(peak, heap())
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Error(err)
				break
			}
		}
		fmt.Fprintf(w, "%d %x", n, sum.Sum(nil))
	}))
	pattern := make([]byte, 1<<20)
	_, _ = rand.Read(pattern) // never fails
	for proto, c := range s.eachHTTP() {
		t.Run(proto, func(t *testing.T) {
			runtime.GC()
			before := heap()
			peak = 0
			sum := sha256.New()
			body := io.TeeReader(io.LimitReader(&cycle{pattern: pattern}, *uploadBytes), sum)
			a := s.do(c, http.MethodPut, s.url("blog"), body)
			if want := fmt.Sprintf("%d %x", *uploadBytes, sum.Sum(nil)); a.body != want {
				t.Errorf("uploaded %q, want %q", a.body, want)
			}
			if peak > before+growth {
				t.Errorf("the heap grew by %d MiB while %d MiB were streamed", (peak-before)>>20, *uploadBytes>>20)
			}
		})
	}
}

type cycle struct {
	pattern []byte
	at      int
}

func (c *cycle) Read(b []byte) (int, error) {
	n := copy(b, c.pattern[c.at:])
	c.at = (c.at + n) % len(c.pattern)
	return n, nil
}

// TestGRPCPasses tests what gRPC requires: HTTP/2 on both sides, both directions at once, trailers.
func TestGRPCPasses(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(50051)...)
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			t.Errorf("the app saw %s, TE %q", r.Proto, r.Header.Get("Te"))
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		buf := make([]byte, 64)
		for {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])                   // the test reads it
			_ = http.NewResponseController(w).Flush() // as above
			if err != nil {
				break
			}
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	}))
	backend.Config.Protocols = new(http.Protocols)
	backend.Config.Protocols.SetUnencryptedHTTP2(true)
	backend.Start()
	t.Cleanup(backend.Close)
	s.backend(blog, 50051, backend.Listener.Addr().String())

	body, send := io.Pipe()
	// well formed
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url("50051-blog")+"/pkg.Echo/Chat", body)
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	go func() { _, _ = send.Write([]byte("one")) }() // the answer shows whether it arrived
	res, err := s.client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := make([]byte, 3)
	for _, word := range []string{"one", "two"} {
		if word == "two" {
			go func() { _, _ = send.Write([]byte("two")) }() // as above
		}
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != word {
			t.Fatalf("%q, %v; want %q", got, err, word)
		}
	}
	_ = send.Close() // never fails
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("rest %q, %v", rest, err)
	}
	if res.ProtoMajor != 2 || res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Grpc-Message") != "fine" {
		t.Errorf("%s, trailers %v", res.Proto, res.Trailer)
	}
}

func TestRequestTrailers(t *testing.T) {
	s := newSite(t)
	blog := s.vm("blog", public(0)...)
	s.app(blog, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only the trailers matter
		fmt.Fprintf(w, "%v", r.Trailer)
	}))
	c, err := handshake(s, s.addr, "blog.lodge.localhost")
	if err != nil {
		t.Fatal(err)
	}
	got := rawRequest(t, c, "POST / HTTP/1.1\r\nHost: blog.lodge.localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"+
		"Trailer: Digest, X-Lodge-User, X_lodge_vm\r\n\r\n3\r\nabc\r\n0\r\nDigest: right\r\nX-Lodge-User: evil\r\nX_lodge_vm: evil\r\n\r\n")
	if !strings.Contains(got, "map[Digest:[right]]") {
		t.Errorf("got %q", got)
	}
}
