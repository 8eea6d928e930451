package forward

import (
	"context"
	"net"
	"net/netip"

	"lodge/gateway"
	"lodge/gateway/relay"
)

// accept serves a listener until it is closed.
func (s *Server) accept(p *port, l net.Listener) {
	for {
		c, err := l.Accept()
		if over(err) {
			return
		}
		if err != nil {
			continue
		}
		vm, ctx, done, ok := s.admit(p, c)
		if !ok {
			relay.Reset(c) // at once: a client must not wait for a VM that is off
			continue
		}
		s.serving.Go(func() {
			defer done()
			s.stream(ctx, c, vm, p)
		})
	}
}

// admit makes an accepted connection a session.
func (s *Server) admit(p *port, c net.Conn) (vm gateway.VM, ctx context.Context, done func(), ok bool) {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return gateway.VM{}, nil, nil, false
	}
	if vm, ok = s.target(p); !ok {
		return gateway.VM{}, nil, nil, false
	}
	ctx, done, ok = s.begin(p, vm, clientOf(from), s.streams)
	return vm, ctx, done, ok
}

// stream passes one connection on. Established ones have no time limit but TCP's keepalive, which
// both have by default.
func (s *Server) stream(ctx context.Context, c net.Conn, vm gateway.VM, p *port) {
	guest, err := s.Dial(ctx, "tcp4", vm, p.VMPort)
	if err != nil {
		relay.Reset(c)
		s.log(p).Debug("forwarded connection was refused", "err", err)
		return
	}
	relay.Join(ctx, c, guest)
}
