package https

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/gateway/relay"
	"lodge/https/conns"
	"lodge/https/names"
	"lodge/https/quota"
)

// Limits of connections that a VM ends the TLS of. They are not http.Server's, so they count here as
// well as in conns.
const (
	maxPassed        = 1024
	maxPassedPerPeer = 64              // not for proxies and loopback, where tunnels end
	helloWait        = 3 * time.Second // for a VM to take the ClientHello, which its kernel has room for
)

// passing are the connections that are passed on to VMs unread.
type passing struct {
	limit  *limit.Limit[passer]
	mu     sync.Mutex
	closed bool
	live   map[*conns.Conn]passed
	ending sync.WaitGroup // of live
}

// passer is who shares the places: a peer. Where that stands for many, each connection may be another
// client.
type passer struct {
	peer gateway.Peer
	conn *conns.Conn
}

// passed is where a connection goes.
type passed struct {
	sni  string
	vm   gateway.VM
	port uint16
	cut  context.CancelFunc
}

func newPassing() *passing {
	return &passing{limit: limit.New[passer](maxPassedPerPeer, maxPassed), live: map[*conns.Conn]passed{}}
}

// passOn returns what passes a connection on if its name is one of Config.Passthrough, else nil. An
// ACME challenge by TLS-ALPN-01 (RFC 8737) is such a connection as well: the VM answers it.
func (s *Server) passOn(sni string) *conns.Pass {
	to, ok := s.passedThrough(sni)
	if !ok {
		return nil
	}
	return &conns.Pass{To: func(c *conns.Conn, hello []byte) {
		ctx, done, ok := s.passing.begin(c, to)
		if !ok {
			relay.Reset(c)
			return
		}
		go s.pass(ctx, done, c, to, hello) // Shutdown waits for done
	}}
}

// passedThrough asks Config.Passthrough about a name as a client spells it.
func (s *Server) passedThrough(host string) (passed, bool) {
	name, ok := s.zone.Outside(host)
	if !ok || s.Passthrough == nil {
		return passed{}, false
	}
	vm, port, ok := s.Passthrough(name)
	return passed{sni: name, vm: vm, port: port}, ok
}

// redirectName returns the name that serveRedirect leads to: one with a route, or one that a VM ends the
// TLS of. An ACME challenge over HTTP reaches that VM by the redirect, which authorities follow.
func (s *Server) redirectName(r *http.Request, rt names.Route, ok bool) (string, bool) {
	if ok {
		return rt.Host, rt.Inside == ""
	}
	to, ok := s.passedThrough(r.Host)
	return to.sni, ok
}

// pass passes a connection on until it ends.
func (s *Server) pass(ctx context.Context, done func(), c *conns.Conn, to passed, hello []byte) {
	defer done()
	if err := s.stream(ctx, c, to, hello); err != nil {
		relay.Reset(c) // at once: a client must not wait for a VM that is off
		s.Logger.With(gateway.LogVM(to.vm.Identity)).Debug("tls connection was not passed on", "err", err)
	}
}

// stream sends the ClientHello to the VM, and joins the connections until they end.
func (s *Server) stream(ctx context.Context, c *conns.Conn, to passed, hello []byte) error {
	var visitor quota.Visitor // a tunnel
	if !c.Many() {
		visitor.Peer = gateway.PeerOf(c)
	}
	leave, over := s.quota.Enter(to.vm.ID, visitor)
	if over != quota.None {
		s.metrics.refused.WithLabelValues(string(over)).Inc()
		return fmt.Errorf("over the limit of the %s", over)
	}
	defer leave()
	// cutPassed checks after each later change, as begin has recorded the connection
	if now, _ := s.Directory.ByID(to.vm.ID); now.Desired != gateway.Running || !s.mayLast(to) {
		return errors.New("the VM is not running, or has lost the name")
	}
	guest, err := s.proxy.Dial(ctx, to.vm, to.port)
	if err != nil {
		return err
	}
	if err := sendHello(guest, hello); err != nil {
		relay.Reset(guest)
		return err
	}
	defer c.Close()                     //nolint:errcheck // Join has closed what is beneath
	relay.Join(ctx, c.NetConn(), guest) // beneath, the kernel copies
	return nil
}

// sendHello sends what was read of a connection.
func sendHello(guest net.Conn, hello []byte) error {
	if err := guest.SetWriteDeadline(time.Now().Add(helloWait)); err != nil {
		return err
	}
	if _, err := guest.Write(hello); err != nil {
		return err
	}
	return guest.SetWriteDeadline(time.Time{})
}

// begin counts a connection; its context ends when it is cut off. It is false above a limit and after
// end. done gives its place back.
func (p *passing) begin(c *conns.Conn, to passed) (ctx context.Context, done func(), ok bool) {
	from := passer{peer: gateway.PeerOf(c)}
	if c.Many() {
		from.conn = c
	}
	leave, ok := p.limit.Enter(from)
	if !ok {
		return nil, nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		leave()
		return nil, nil, false
	}
	ctx, to.cut = context.WithCancel(context.Background())
	p.live[c] = to
	p.ending.Add(1)
	return ctx, func() {
		p.mu.Lock()
		delete(p.live, c)
		p.mu.Unlock()
		to.cut()
		leave()
		p.ending.Done()
	}, true
}

// cutPassed cuts off what may last no longer, after each change of a VM.
func (s *Server) cutPassed() {
	s.passing.mu.Lock()
	defer s.passing.mu.Unlock()
	for _, to := range s.passing.live {
		if !s.mayLast(to) {
			to.cut()
		}
	}
}

// mayLast reports whether the name still leads to the same port of the same run of a VM. An ordinary
// stop leaves connections to the guest, which ends its services in order.
func (s *Server) mayLast(to passed) bool {
	vm, port, ok := s.Passthrough(to.sni)
	if !ok || vm.ID != to.vm.ID || port != to.port {
		return false
	}
	now, ok := s.Directory.ByID(vm.ID)
	return ok && now.Incarnation == to.vm.Incarnation && now.Desired != gateway.Removed &&
		(now.Desired != gateway.Stopped || !now.ForceStop)
}

// end cuts off all connections: a stream of bytes has no point at which it could end.
func (p *passing) end() {
	p.mu.Lock()
	p.closed = true
	for _, to := range p.live {
		to.cut()
	}
	p.mu.Unlock()
	p.ending.Wait()
}
