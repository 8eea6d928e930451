package https

import (
	"fmt"
	"net"
	"net/http"

	"lodge/gateway"
	"lodge/https/h3"
)

// http3Life is how long, in seconds, browsers remember that there is HTTP/3.
const http3Life = 3600

func (s *Server) newHTTP3() *h3.Server {
	return h3.New(h3.Config{
		Handler: s.web.Handler, TLS: s.tlsConfig(), Guard: s.conns, MaxHeaderBytes: maxHeaderBytes,
		IdleTime: idleTimeout, DrainTime: drainTime, Logger: s.Logger,
	})
}

// ServeHTTP3 serves HTTP/3 on c until Shutdown, and closes it. Call it only with Config.HTTP3.
func (s *Server) ServeHTTP3(c net.PacketConn) error { return s.http3.Serve(c) }

// offerHTTP3 names the port of HTTP/3 to browsers (RFC 7838). Guests have none.
func (s *Server) offerHTTP3(h http.Header, r *http.Request) {
	if s.HTTP3 && r.ProtoMajor < 3 && !gateway.VMFrom(r.Context()).Known() {
		h.Set("Alt-Svc", fmt.Sprintf(`h3=":%d"; ma=%d`, s.Port, http3Life))
	}
}
