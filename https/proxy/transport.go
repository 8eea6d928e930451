package proxy

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"lodge/gateway"
	"lodge/https/conns"
)

// Target is a port of a VM, as the Directory had the VM when the request came.
type Target struct {
	VM   gateway.VM
	Port uint16
}

// key identifies the target in the pool of idle connections. It has the UUID, not the name or the
// address, and the incarnation, so that no connection outlives a start of the VM.
func (t Target) key() string {
	return t.VM.ID.String() + "." + strconv.FormatUint(uint64(t.VM.Incarnation), 10) + ":" + strconv.Itoa(int(t.Port))
}

func (t Target) lineKey() lineKey { return lineKey{t.VM.ID, t.VM.Incarnation, t.Port} }

type targetKey struct{}

// withTarget returns a context with the target: the transports pass nothing else to their
// DialContext.
func withTarget(ctx context.Context, t Target) context.Context {
	return context.WithValue(ctx, targetKey{}, t)
}

func targetFrom(ctx context.Context) (Target, bool) {
	t, ok := ctx.Value(targetKey{}).(Target)
	return t, ok
}

// transport returns a transport for HTTP/1.1, or for HTTP/2 without TLS (h2c).
func (p *Proxy) transport(h2c bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2c)
	protocols.SetUnencryptedHTTP2(h2c)
	return &http.Transport{
		DialContext:            p.dialTarget,
		Protocols:              protocols,
		DisableCompression:     true, // bodies are passed unchanged
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdlePerTarget,
		IdleConnTimeout:        idleTime,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxResHeader,
		ReadBufferSize:         lineBuffer,
		WriteBufferSize:        lineBuffer,
	}
}

// dialTarget connects to the target in ctx. Another request with the same key may get the
// connection.
func (p *Proxy) dialTarget(ctx context.Context, _, _ string) (net.Conn, error) {
	t, ok := targetFrom(ctx)
	if !ok {
		return nil, errors.New("dial VM: the request has no target")
	}
	return p.dial(ctx, t)
}

func (p *Proxy) dial(ctx context.Context, t Target) (net.Conn, error) {
	c, err := p.Dial(ctx, t.VM, t.Port)
	if err != nil {
		return nil, dialError(err)
	}
	return c, nil
}

// transports selects the protocol by the request: HTTP/2 for gRPC, and HTTP/1.1 otherwise.
type transports struct{ plain, grpc *http.Transport }

// RoundTrip implements http.RoundTripper.
func (t transports) RoundTrip(r *http.Request) (*http.Response, error) {
	if conns.IsGRPC(r.Header.Get("Content-Type")) {
		return t.grpc.RoundTrip(r)
	}
	return t.plain.RoundTrip(r)
}
