// Package proxy passes requests on to ports of VMs.
//
// A request arrives with its target and its visitor, both decided. Forward removes what the client
// claims about identity, sets the gateway's own headers, dials the VM and streams both ways. Find
// returns the port that a VM's plain name leads to.
//
// The package never decides who may open what, never trusts a header for who someone is, never lets
// the gateway's cookies reach a VM, and never dials a VM by any way but Config.Dial.
package proxy

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/login"
)

// Config is what a Proxy needs. All fields but Dial are required.
type Config struct {
	// Dial connects to a port of a VM. The default is DialTap.
	Dial func(ctx context.Context, vm gateway.VM, port uint16) (net.Conn, error)
	// OnResponse may change the header of a VM's response before it is sent.
	OnResponse func(*http.Response)
	Logger     *slog.Logger
}

// Proxy passes requests on. It is safe for concurrent use.
type Proxy struct {
	Config
	finder   finder
	plain    *http.Transport // HTTP/1.1
	grpc     *http.Transport // HTTP/2 without TLS (RFC 9113 §3.3), which is what gRPC servers speak
	buffers  bufferPool
	lines    *lines      // of exchange
	errorLog *log.Logger // of ReverseProxy
}

// New returns a Proxy. Close it when done.
func New(cfg Config) *Proxy {
	if cfg.Dial == nil {
		cfg.Dial = DialTap
	}
	p := &Proxy{
		Config:   cfg,
		finder:   finder{found: map[gateway.ID]found{}},
		buffers:  newBufferPool(),
		errorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	p.plain, p.grpc = p.transport(false), p.transport(true)
	p.lines = newLines(p.dial)
	return p
}

// Forward sends r to a port of a VM and its response to w. After an error, nothing was sent, and
// the caller has to answer. The error is ErrRefused or ErrNoRoute when the VM could not be reached,
// ErrBadBody when the client's body is at fault.
func (p *Proxy) Forward(w http.ResponseWriter, r *http.Request, to Target, who access.Visitor) error {
	if r.Method == http.MethodConnect { // its body is the client's half of the tunnel
		err := p.tunnel(w, r, to, who)
		if err != nil {
			p.Remove(to.VM.ID)
		}
		return err
	}
	road := p.reverse
	ignoreOddUpgrade(r.Header)
	if isPlain(r) {
		road = p.exchange
	}
	r, body := watchBody(r)
	err := road(w, r, to, who)
	switch failure := body.err(); {
	case err == nil:
		return nil
	case failure != nil: // the app is not to blame
		return failure
	}
	p.Remove(to.VM.ID)
	return err
}

// reverse is the road of what exchange cannot pass on.
func (p *Proxy) reverse(w http.ResponseWriter, r *http.Request, to Target, who access.Visitor) error {
	var failed error
	forward := &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host = "http", to.key()
			pr.Out.URL.RawQuery = pr.In.URL.RawQuery // unchanged: nothing here parses it
			rewrite(pr, who)
		},
		Transport:     transports{p.plain, p.grpc},
		FlushInterval: -1, // at every write, for streams
		BufferPool:    p.buffers,
		ErrorLog:      p.errorLog,
		ModifyResponse: func(res *http.Response) error {
			p.modify(res)
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	forward.ServeHTTP(w, r.WithContext(withTarget(r.Context(), to)))
	return failed
}

// modify changes the header of a VM's response.
func (p *Proxy) modify(res *http.Response) {
	login.StripSetCookies(res.Header)
	p.OnResponse(res)
}

// Remove removes the cached port of a VM.
func (p *Proxy) Remove(id gateway.ID) { p.finder.remove(id) }

// Close closes idle connections to VMs.
func (p *Proxy) Close() {
	p.plain.CloseIdleConnections()
	p.grpc.CloseIdleConnections()
	p.lines.close()
}

// rewrite makes the request for the VM, on both roads. Hop-by-hop headers (RFC 9110 §7.6.1) are
// already removed.
func rewrite(p *httputil.ProxyRequest, who access.Visitor) {
	p.Out.Host = p.In.Host
	if query := encodeQuery(p.Out.URL.RawQuery); query != p.Out.URL.RawQuery {
		u := *p.Out.URL // exchange has that of the client's request here
		u.RawQuery, p.Out.URL = query, &u
	}
	stripIdentityHeaders(p.Out.Header)
	login.StripCookies(p.Out.Header)
	login.StripTokens(p.Out.Header)
	keepHTTP1(p.Out.Header)
	p.SetXForwarded()
	setIdentityHeaders(p.Out.Header, who)
	forwardTrailers(p)
}

// keepHTTP1 removes an offer to upgrade to HTTP/2 (RFC 7540 §3.2), which servers may ignore:
// requests on such a connection would reach the app with the client's own identity headers.
func keepHTTP1(h http.Header) {
	if strings.Contains(strings.ToLower(strings.Join(h["Upgrade"], ",")), "h2c") {
		h.Del("Connection")
		h.Del("Upgrade")
	}
	h.Del("Http2-Settings")
}

// forwardTrailers passes on the trailers that the request announced. Their values arrive at the end
// of its body.
func forwardTrailers(p *httputil.ProxyRequest) {
	stripIdentityHeaders(p.Out.Trailer)
	if len(p.Out.Trailer) == 0 || p.Out.Body == nil {
		p.Out.Trailer = nil
		return
	}
	p.Out.Body = &trailing{ReadCloser: p.Out.Body, from: p.In, to: p.Out.Trailer}
}

// trailing is a body whose trailers are copied at its end.
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

// bufferPool implements httputil.BufferPool.
type bufferPool struct{ pool *sync.Pool }

const bufferBytes = 32 << 10

func newBufferPool() bufferPool {
	return bufferPool{&sync.Pool{New: func() any { return new([bufferBytes]byte) }}}
}

func (p bufferPool) Get() []byte { return p.pool.Get().(*[bufferBytes]byte)[:] }

func (p bufferPool) Put(b []byte) { p.pool.Put((*[bufferBytes]byte)(b)) }
