package dns

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	wire "github.com/miekg/dns"

	"lodge/gateway"
)

// ServeTCP answers on l, whose connections carry their VM, until l closes; then it ends those that
// are left and returns nil.
func (s *Server) ServeTCP(l net.Listener) error {
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		vm := gateway.IdentityOf(c)
		leave, ok := s.conns.Enter(vm.ID)
		if !ok {
			_ = c.Close() // over its limit
			continue
		}
		conns.Go(func() {
			defer leave()
			s.serveConn(ctx, vm, c)
		})
	}
}

// serveConn answers one question after the other.
func (s *Server) serveConn(ctx context.Context, vm gateway.Identity, c net.Conn) {
	defer c.Close()                                          //nolint:errcheck // nothing was buffered that could be lost
	defer context.AfterFunc(ctx, func() { _ = c.Close() })() // ends the read below
	framed := &wire.Conn{Conn: c}
	for c.SetDeadline(time.Now().Add(idleTCP)) == nil {
		query, err := framed.ReadMsg()
		if err != nil {
			return // idle, gone, or not DNS
		}
		reply := s.answer(ctx, vm, "tcp", query)
		if reply == nil || c.SetDeadline(time.Now().Add(idleTCP)) != nil || framed.WriteMsg(reply) != nil {
			return
		}
	}
}

// ServeUDP answers vm on c, the socket on its tap, until c closes.
func (s *Server) ServeUDP(vm gateway.Identity, c net.PacketConn) {
	ctx, cancel := context.WithCancel(context.Background())
	var answers sync.WaitGroup
	defer answers.Wait()
	defer cancel()
	slots := make(chan struct{}, 2*maxPerVM) // twice: refusals and own names take a slot, but no share of the limit
	buf := make([]byte, 4096)                // a question is far smaller
	for errs := 0; errs < maxReadErrors; {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			errs++ // such as an ICMP error for an earlier answer
			continue
		}
		errs = 0
		query := new(wire.Msg)
		if query.Unpack(buf[:n]) != nil {
			continue // not DNS
		}
		slots <- struct{}{}
		answers.Go(func() {
			defer func() { <-slots }()
			s.answerPacket(ctx, vm, c, from, query)
		})
	}
}

func (s *Server) answerPacket(ctx context.Context, vm gateway.Identity, c net.PacketConn, from net.Addr, query *wire.Msg) {
	reply := s.answer(ctx, vm, "udp", query)
	if reply == nil {
		return
	}
	packed, err := reply.Pack()
	if err != nil {
		s.Logger.WarnContext(ctx, "dns answer not packed", "vm", vm.Name, "err", err)
		return
	}
	_, _ = c.WriteTo(packed, from) // UDP: the guest repeats its query
}
