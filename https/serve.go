package https

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/https/names"
	"lodge/https/pages"
)

// Limits of what strangers can make large.
const (
	maxHeaderBytes = 64 << 10
	headerTimeout  = 10 * time.Second // TLS handshake and request header, each
	idleTimeout    = 2 * time.Minute
	drainTime      = 3 * time.Second // how long idle connections stay open in Shutdown
)

// Serve serves TLS on l, from outside or from taps, until Shutdown. It can be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	return s.serveOn(l, func() error { return s.web.ServeTLS(l, "", "") })
}

// ServeRedirect answers plain HTTP on l: it sends our own names to https and knows no others.
func (s *Server) ServeRedirect(l net.Listener) error {
	return s.serveOn(l, func() error { return s.redirect.Serve(l) })
}

// serveOn runs serve, which ends without an error when Shutdown has closed l.
func (s *Server) serveOn(l net.Listener, serve func() error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.open[l] = struct{}{}
	s.mu.Unlock()
	err := serve()
	if s.draining.Load() && (errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed)) {
		return nil
	}
	return err
}

// servers makes the two http.Servers. The cancel function ends all their requests.
func (s *Server) servers() (web, redirect *http.Server, cancel context.CancelFunc) {
	base, cancel := context.WithCancel(context.Background())
	one := func(h http.HandlerFunc) *http.Server {
		return &http.Server{
			Handler:           h,
			BaseContext:       func(net.Listener) context.Context { return base },
			ConnContext:       gateway.ConnContext,
			ConnState:         s.conns.change,
			MaxHeaderBytes:    maxHeaderBytes,
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       idleTimeout,
			ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug), // strangers' handshakes, mostly
		}
	}
	web, redirect = one(s.serveWeb), one(s.serveRedirect)
	web.TLSConfig = s.tlsConfig()
	return web, redirect, cancel
}

// Shutdown stops accepting, lets requests finish and closes. A connection is closed after an answer that has said so,
// never under a request that is just being sent; those that stay idle are closed after a moment. When ctx ends, what
// is still under way is cut off, and so are WebSockets.
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

	s.conns.wait(ctx, drainTime)
	err := errors.Join(s.web.Shutdown(ctx), s.redirect.Shutdown(ctx))
	s.cancel()
	if err != nil {
		_ = s.web.Close()      // the deadline is over: what is cut off now is reported by err
		_ = s.redirect.Close() // as above
	}
	s.proxy.Close()
	s.authority.Close()
	return err
}

// closeIfDraining says on an answer that the connection ends with it, while draining. An upgrade has its own Connection header.
func (s *Server) closeIfDraining(h http.Header, r *http.Request) {
	if s.draining.Load() && r.Header.Get("Upgrade") == "" {
		h.Set("Connection", "close")
	}
}

// onResponse is for proxy.Config.
func (s *Server) onResponse(res *http.Response) { s.closeIfDraining(res.Header, res.Request) }

// serveRedirect sends a name of ours to https, with the method and the body kept (RFC 9110 §15.4.9).
func (s *Server) serveRedirect(w http.ResponseWriter, r *http.Request) {
	rt, ok := s.zone.Route(r.Host, gateway.VMFrom(r.Context()), s.Directory)
	w, done := s.logged(w, r, rt)
	defer done()
	s.closeIfDraining(w.Header(), r)
	if !ok || rt.Inside != "" || !strings.HasPrefix(r.URL.RequestURI(), "/") {
		s.pages.Render(w, r, pages.Misdirected())
		return
	}
	target := names.Origin(rt.Host, s.Port) + r.URL.RequestURI()
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusPermanentRedirect)
}
