package https

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/https/conns"
	"lodge/https/login"
	"lodge/https/names"
	"lodge/https/pages"
)

// Limits on what a client can make large or slow.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	drainTime     = 3 * time.Second // how long idle connections stay open in Shutdown
)

// Serve serves TLS on l until Shutdown. Call it once for each listener, outside or on taps.
func (s *Server) Serve(l net.Listener) error {
	return s.serveOn(l, func() error { return s.web.Serve(s.conns.Listener(l, s.tlsConfig())) })
}

// ServeRedirect serves plain HTTP on l until Shutdown: it redirects names that have a route to
// https.
func (s *Server) ServeRedirect(l net.Listener) error {
	return s.serveOn(l, func() error { return s.redirect.Serve(s.conns.Listener(l, nil)) })
}

// serveOn runs serve and returns its error, or nil when Shutdown has closed l.
func (s *Server) serveOn(l net.Listener, serve func() error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.open[l] = struct{}{}
	s.serving.Add(1)
	s.mu.Unlock()
	err := serve()
	s.serving.Done()
	if s.draining.Load() && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return err
}

// servers returns the two http.Servers, whose requests end with base.
func (s *Server) servers(base context.Context) (web, redirect *http.Server) {
	one := func(h http.HandlerFunc) *http.Server {
		return &http.Server{
			Handler:     conns.Handler(h),
			BaseContext: func(net.Listener) context.Context { return base },
			ConnContext: func(ctx context.Context, c net.Conn) context.Context {
				return conns.Context(gateway.ConnContext(ctx, c), c)
			},
			ConnState:         s.conns.State,
			MaxHeaderBytes:    maxHeaderBytes,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			// failed handshakes, mostly
			ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
		}
	}
	web, redirect = one(s.serveWeb), one(s.serveRedirect)
	web.TLSConfig = s.tlsConfig() // for its protocols; net/http changes it, so no listener has it
	return web, redirect
}

// Shutdown stops accepting, waits for requests to finish and closes all connections. Responses
// announce the close (RFC 9112 §9.6), so no request is lost on its way; connections that stay idle
// are closed after drainTime. When ctx ends, requests under way and WebSockets are cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.draining.Store(true)
	for l := range s.open {
		_ = l.Close() // Serve returns because of it
	}
	s.mu.Unlock()
	if s.acme != nil {
		s.acme.Drain() // handshakes wait for orders
	}
	s.serving.Wait() // so that conns has all that was accepted

	s.waker.stop()
	http3 := make(chan error, 1)
	go func() { http3 <- s.http3.Shutdown(ctx) }() // it sends clients GOAWAY, and waits as long as conns.Wait
	s.conns.Wait(ctx, drainTime)
	s.live.endTunnels()
	err := errors.Join(s.web.Shutdown(ctx), s.redirect.Shutdown(ctx), <-http3)
	s.cancel()
	s.passing.end()
	if err != nil {
		_ = s.web.Close()      // err reports what is cut off
		_ = s.redirect.Close() // as above
	}
	s.conns.Close()
	s.proxy.Close()
	if s.acme != nil {
		s.acme.Close(ctx)
	}
	return err
}

// closeIfDraining announces in a response header that the connection ends, during Shutdown. An
// upgrade has its own Connection header.
func (s *Server) closeIfDraining(h http.Header, r *http.Request) {
	if s.draining.Load() && r.ProtoMajor < 3 && r.Header.Get("Upgrade") == "" {
		h.Set("Connection", "close")
	}
}

// onResponse is the OnResponse of proxy.Config.
func (s *Server) onResponse(res *http.Response) {
	s.closeIfDraining(res.Header, res.Request)
	if len(res.Header["Set-Cookie"]) > 0 {
		login.NarrowSetCookies(res.Header, s.cookieName(res.Request.Host))
	}
	if s.acme != nil {
		res.Header.Del("Strict-Transport-Security") // serveWeb decides
	}
}

// cookieName is the name whose VM may set cookies at host. For a custom domain that is the domain, or
// what a wildcard is below of.
func (s *Server) cookieName(host string) names.Name {
	if name, ok := s.zone.Parse(host); ok {
		return name
	}
	rt, _ := s.zone.Route(host, gateway.Identity{}, s.Directory)
	_, d, _ := s.Directory.ByDomain(rt.Host)
	return names.Name{Host: rt.Host, Plain: cmp.Or(strings.TrimPrefix(d.Name, "*."), rt.Host)}
}

// serveRedirect redirects a name with a route to https, keeping method and body (RFC 9110 §15.4.9).
func (s *Server) serveRedirect(w http.ResponseWriter, r *http.Request) {
	if s.acme != nil && s.acme.ServeChallenge(w, r) {
		return
	}
	s.believeProxy(r)
	rt, ok := s.zone.Route(r.Host, gateway.VMFrom(r.Context()), s.Directory)
	w, done := s.logged(w, r, rt)
	defer done()
	s.closeIfDraining(w.Header(), r)
	host, ok := s.redirectName(r, rt, ok)
	if !ok || !strings.HasPrefix(r.URL.RequestURI(), "/") {
		s.pages.Render(w, r, pages.Misdirected())
		return
	}
	target := names.Origin(host, s.portFor(r)) + r.URL.RequestURI()
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusPermanentRedirect)
}
