package https

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login"
	"lodge/https/names"
)

// proxy is made for one request: everything it does depends on who asks for what.
func (s *Server) proxy(rt names.Route, who access.Visitor, port uint16) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { rewrite(p, rt, who, port) },
		Transport:     (*engine)(s),
		FlushInterval: -1, // every write at once: streams and server-sent events
		BufferPool:    s.buffers,
		ErrorLog:      slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
		ModifyResponse: func(res *http.Response) error {
			login.StripSetCookies(res.Header)
			s.lastAnswer(res.Header, res.Request)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			s.finder.forget(rt.VM.ID)
			s.failed(w, r, rt, who, err)
		},
	}
}

// rewrite makes the request that the VM gets. ReverseProxy has removed hop-by-hop headers (RFC 9110 §7.6.1) before it.
func rewrite(p *httputil.ProxyRequest, rt names.Route, who access.Visitor, port uint16) {
	p.Out.URL.Scheme = "http"
	p.Out.URL.Host = target{rt.VM.ID, rt.VM.Incarnation, port}.String()
	p.Out.URL.RawQuery = p.In.URL.RawQuery // as it was sent: nothing here depends on its meaning
	p.Out.Host = p.In.Host
	stripOurs(p.Out.Header)
	login.StripCookies(p.Out.Header)
	keepHTTP1(p.Out.Header)
	p.SetXForwarded()
	announce(p.Out.Header, who)
	forwardTrailers(p)
}

// keepHTTP1 takes out the wish to go on in HTTP/2 (RFC 7540 §3.2): requests on such a connection would reach the app
// unseen, with whatever they claim of who sends them. Servers may ignore the wish, and so do we.
func keepHTTP1(h http.Header) {
	if strings.Contains(strings.ToLower(strings.Join(h["Upgrade"], ",")), "h2c") {
		h.Del("Connection")
		h.Del("Upgrade")
	}
	h.Del("Http2-Settings")
}

// forwardTrailers passes on the trailers that the request has announced. Their values are there once its body is read.
func forwardTrailers(p *httputil.ProxyRequest) {
	stripOurs(p.Out.Trailer)
	if len(p.Out.Trailer) == 0 || p.Out.Body == nil {
		p.Out.Trailer = nil
		return
	}
	p.Out.Body = &trailing{ReadCloser: p.Out.Body, from: p.In, to: p.Out.Trailer}
}

type trailing struct {
	io.ReadCloser
	from *http.Request
	to   http.Header
}

func (t *trailing) Read(b []byte) (int, error) {
	n, err := t.ReadCloser.Read(b)
	if errors.Is(err, io.EOF) {
		for name := range maps.Keys(t.to) {
			t.to[name] = t.from.Trailer[name]
		}
	}
	return n, err
}

// target is a port of a VM as the transports know it. Idle connections are kept by it: never by a name or an address,
// and not beyond a start of the VM.
type target struct {
	id          gateway.ID
	incarnation uint32
	port        uint16
}

func (t target) String() string { return fmt.Sprintf("%s.%d:%d", t.id, t.incarnation, t.port) }

func parseTarget(s string) (t target, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return t, err
	}
	id, incarnation, _ := strings.Cut(host, ".")
	if t.id, err = gateway.ParseID(id); err != nil {
		return t, err
	}
	n, err := strconv.ParseUint(incarnation, 10, 32)
	if err != nil {
		return t, err
	}
	t.incarnation = uint32(n)
	t.port, err = gateway.ParsePort(port)
	return t, err
}

// transport talks to VMs.
func (s *Server) transport(h2c bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2c)
	protocols.SetUnencryptedHTTP2(h2c)
	return &http.Transport{
		DialContext:            s.dialTarget,
		Protocols:              protocols,
		DisableCompression:     true, // bodies pass as they are
		MaxIdleConns:           512,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        4 * time.Second, // less than apps keep them (Node.js: 5 s), so that no request meets a closing one
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         16 << 10,
		WriteBufferSize:        16 << 10,
	}
}

func (s *Server) dialTarget(ctx context.Context, _, addr string) (net.Conn, error) {
	t, err := parseTarget(addr)
	if err != nil {
		return nil, fmt.Errorf("read target: %w", err)
	}
	m, ok := s.Directory.ByID(t.id)
	if !ok || m.Desired != gateway.Running || m.Incarnation != t.incarnation {
		return nil, errGone
	}
	return s.Dial(ctx, m, t.port)
}

// errGone means that the VM was stopped, removed or started anew while the request was under way.
var errGone = errors.New("the VM is not running any more")

// engine chooses the transport: gRPC needs HTTP/2 all the way, for everything else HTTP/1.1 is what apps speak.
type engine Server

// RoundTrip implements http.RoundTripper.
func (e *engine) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return e.grpc.RoundTrip(r)
	}
	return e.plain.RoundTrip(r)
}

// bufferPool implements httputil.BufferPool.
type bufferPool struct{ pool sync.Pool }

const bufferBytes = 32 << 10

func newBufferPool() *bufferPool {
	return &bufferPool{sync.Pool{New: func() any { return new([bufferBytes]byte) }}}
}

func (p *bufferPool) Get() []byte { return p.pool.Get().(*[bufferBytes]byte)[:] }

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferBytes]byte)(b)) }
