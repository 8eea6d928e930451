package https_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lodge/gateway/gatewaytest"
	"lodge/https"
)

const (
	hostileAddresses = 64
	hostileConns     = 9 // of each: more than conns.Places in all
)

// fewFiles limits the descriptors of the process, which the number of connections follows.
func fewFiles(tb testing.TB, soft uint64) {
	tb.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		tb.Fatal(err)
	}
	if before.Cur < soft {
		tb.Fatalf("the test needs %d descriptors; there are %d", soft, before.Cur)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: soft, Max: before.Max}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) }) // as it was
}

// farBuffer keeps the buffers of far connections small. On loopback each takes megabytes, so a crowd
// of slow readers begins with gigabytes.
const farBuffer = 32 << 10

// farListener is a listener to which the loopback addresses of its clients are those of strangers.
type farListener struct{ net.Listener }

func (l farListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farConn{c}, c.(*net.TCPConn).SetWriteBuffer(farBuffer)
}

type farConn struct{ net.Conn }

// NetConn returns the connection beneath.
func (c farConn) NetConn() net.Conn { return c.Conn }

// RemoteAddr is 203.0.113.n for 127.0.1.n.
func (c farConn) RemoteAddr() net.Addr {
	addr := *c.Conn.RemoteAddr().(*net.TCPAddr)
	addr.IP = net.IPv4(203, 0, 113, addr.IP.To4()[3])
	return &addr
}

// newFarSite is a site that strangers reach.
func newFarSite(tb testing.TB, change ...func(*https.Config)) *site {
	tb.Helper()
	s := newSite(tb, change...)
	l := listen(tb)
	s.addr = l.Addr().String()
	s.serve(func() error { return s.server.Serve(farListener{l}) })
	return s
}

// from dials from 127.0.1.n.
func from(n int) net.Dialer {
	return net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(n))}}
}

// hostile opens one connection that takes a place and gives the server no reason to end it.
type hostile func(s *site, c net.Conn) error

func overTLS(first string) hostile {
	return func(s *site, c net.Conn) error {
		over := tls.Client(c, &tls.Config{ServerName: "blog." + s.domain, RootCAs: s.roots, MinVersion: tls.VersionTLS12})
		if err := over.HandshakeContext(s.tb.Context()); err != nil {
			return err
		}
		_, err := io.WriteString(over, first)
		return err
	}
}

func hostiles() map[string]hostile {
	return map[string]hostile{
		"silent":      func(*site, net.Conn) error { return nil },
		"slow header": overTLS("GET / HTTP/1.1\r\nHost: blog.lodge.localhost\r\nX-Slow: "),
		"slow body":   overTLS("POST /body HTTP/1.1\r\nHost: blog.lodge.localhost\r\nContent-Length: 100000\r\n\r\nslow"),
		"slow reader": func(s *site, c net.Conn) error { // it never reads
			if err := c.(*net.TCPConn).SetReadBuffer(farBuffer); err != nil {
				return err
			}
			return overTLS("GET /large HTTP/1.1\r\nHost: blog.lodge.localhost\r\n\r\n")(s, c)
		},
	}
}

// crowd opens the connections of all hostile addresses, and leaves them open.
func (s *site) crowd(kind hostile) {
	s.tb.Helper()
	var opening sync.WaitGroup
	for n := range hostileAddresses {
		dialer := from(n + 1)
		opening.Go(func() {
			for range hostileConns {
				c, err := dialer.DialContext(s.tb.Context(), "tcp", s.addr)
				if err != nil {
					continue // it was refused
				}
				s.tb.Cleanup(func() { _ = c.Close() }) // the test is over
				_ = kind(s, c)                         // the server may have closed it
			}
		})
	}
	opening.Wait()
}

// cut is how many connections the limits have closed.
func (s *site) cut() (n float64) {
	s.tb.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.server.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		s.tb.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "lodge_web_connections_cut_total" {
			for _, metric := range family.GetMetric() {
				n += metric.GetCounter().GetValue()
			}
		}
	}
	return n
}

// visit opens a page on a new connection from an address of its own, and returns how long it took.
func (s *site) visit(h2 bool) (time.Duration, error) {
	transport := s.client().Transport.(*http.Transport)
	transport.ForceAttemptHTTP2 = h2
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		dialer := from(200)
		return dialer.DialContext(ctx, "tcp", s.addr)
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(s.tb.Context(), 20*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("blog"), nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	res, err := transport.RoundTrip(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || string(body) != "hello" {
		return 0, fmt.Errorf("%s: %q, %w", res.Status, body, err)
	}
	if want := map[bool]int{false: 1, true: 2}[h2]; res.ProtoMajor != want {
		return 0, fmt.Errorf("the page came by %s", res.Proto)
	}
	return time.Since(start), nil
}

// victim is an app with what each kind of hostile client asks for.
func victim() http.Handler {
	large := make([]byte, 1<<20) // more than the buffers on the way to a far client
	mux := http.NewServeMux()
	mux.HandleFunc("/body", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(large) })
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	return mux
}

// TestCrowdLeavesRoom: 64 hostile addresses want more places than there are, and the next visitor
// gets its pages.
func TestCrowdLeavesRoom(t *testing.T) {
	for name, kind := range hostiles() {
		t.Run(name, func(t *testing.T) {
			fewFiles(t, 4096)
			s := newFarSite(t)
			blog := s.vm("blog", public(0)...)
			s.app(blog, 80, victim())
			s.crowd(kind)
			// The kernel has accepted all; the server still may have some before it.
			gatewaytest.WaitFor(t, "a cut, or the test shows nothing", func() bool { return s.cut() > 0 })
			for _, h2 := range []bool{false, true} {
				var took []time.Duration
				for range 50 {
					one, err := s.visit(h2)
					if err != nil {
						t.Fatalf("visit %d, HTTP/2 %v: %v", len(took)+1, h2, err)
					}
					took = append(took, one)
				}
				slices.Sort(took)
				t.Logf("HTTP/2 %v: p50 %v, p95 %v", h2, took[len(took)/2], took[len(took)*95/100])
			}
		})
	}
}

// TestCrowdOfOneVMLeavesTheOther: however many requests wait for one VM's app, the other VM's page
// opens.
func TestCrowdOfOneVMLeavesTheOther(t *testing.T) {
	fewFiles(t, 2048)
	s := newSite(t)
	blog, shop := s.vm("blog", public(0)...), s.vm("shop", public(0)...)
	wait := make(chan struct{})
	release := sync.OnceFunc(func() { close(wait) })
	defer release()
	app := http.NewServeMux()
	app.HandleFunc("/wait", func(http.ResponseWriter, *http.Request) { <-wait })
	app.Handle("/", victim())
	s.app(blog, 80, app)
	s.app(shop, 80, victim())
	answers := make(chan int, 400)
	var crowd sync.WaitGroup
	for range 4 { // a client has one connection, with 100 requests
		client := s.client()
		s.get(client, s.url("blog")) // connects
		for range 100 {
			crowd.Go(func() { answers <- s.get(client, s.url("blog")+"/wait").StatusCode })
		}
	}
	gatewaytest.WaitFor(t, "an answer to one of the crowd", func() bool { return len(answers) > 0 })
	if got := <-answers; got != http.StatusTooManyRequests {
		t.Errorf("the first of a crowd to get an answer got %d", got)
	}
	if a := s.get(s.client(), s.url("shop")); a.body != "hello" {
		t.Errorf("beside a crowd the other VM answers %s: %q", a.Status, a.body)
	}
	release()
	crowd.Wait()
	if a := s.get(s.client(), s.url("blog")); a.StatusCode != http.StatusOK {
		t.Errorf("after the crowd: %s", a.Status)
	}
}
