// Package control is the API on the host itself: HTTP and JSON over a unix socket.
//
// Listen makes the socket, for root and group lodge, and finds out who each caller is (SO_PEERCRED); Server turns each request into a call of an
// api.Session of that caller, and its answer into JSON; Client is the other end, which cmd/lodge uses. Errors travel as
// {"kind","error","hint"} and come out of Client as the *gateway.Error that went in. Long work (making a VM, waiting for
// one) is streamed: one JSON Event per line, the result or the error last.
//
// It never listens on the network, never decides who may do what (package api does), and never logs what it answers.
package control

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

// DefaultSocket is where lodged listens and lodge connects.
const DefaultSocket = gateway.DefaultRunDir + "/lodged.sock"

// Config is what a Server needs. Every field is required.
type Config struct {
	API     *api.API
	Metrics http.Handler // answers GET /metrics, for those who may ask for the daemon's health
	Logger  *slog.Logger
}

// Server serves the API.
type Server struct {
	Config
	http *gateway.DrainedServer
	stop context.CancelFunc
}

// New returns a Server that serves nothing yet.
func New(config Config) *Server {
	base, stop := context.WithCancel(context.Background())
	s := &Server{Config: config, stop: stop}
	s.http = gateway.NewDrainedServer(&http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return WithCaller(ctx, callerOf(c)) },
		ErrorLog:          slog.NewLogLogger(config.Logger.Handler(), slog.LevelWarn),
	})
	return s
}

// Serve answers on l, a listener made by Listen, until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(l) }

// Shutdown ends consoles, followed logs and waits, lets other requests finish, and closes what is left when ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	return s.http.Shutdown(ctx)
}

type callerKey struct{}

// WithCaller returns a context that carries who calls. It exists for net/http alone, which has no other way.
func WithCaller(ctx context.Context, caller api.Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, caller)
}

// as is the API as the caller of r may use it.
func (s *Server) as(r *http.Request) api.Session {
	caller, _ := r.Context().Value(callerKey{}).(api.Caller)
	return s.API.As(caller)
}
