package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/gateway/sockets"
)

// port is a forwarded port of the host, with a socket on each of its addresses.
type port struct {
	gateway.Forward
	clients *limit.Limit[client]

	mu   sync.Mutex
	open map[netip.Addr]*socket
	err  error // why an address has none
}

// socket is an open one. What arrives before serve waits in the kernel.
type socket struct {
	io.Closer
	serve  func()
	served bool
	table  *table // of UDP
}

func newPort(f gateway.Forward) *port {
	each, all := maxConnsPerPeer, maxConns
	if f.Protocol == gateway.UDP {
		each, all = maxFlowsPerPeer, maxFlows
	}
	return &port{Forward: f, clients: limit.New[client](each, all), open: map[netip.Addr]*socket{}}
}

// addrs returns where p listens.
func (s *Server) addrs(p *port) []netip.Addr {
	if p.Addr.IsValid() {
		return []netip.Addr{p.Addr}
	}
	return s.Addrs
}

// open opens p on those of its addresses where it is not open yet. It tries all, and returns the
// first error.
func (s *Server) open(ctx context.Context, p *port) error {
	var first error
	if what, ok := s.Own[p.HostPort]; ok {
		first = gateway.Errorf(gateway.KindConflict, "port %s of the host is lodged's own (%s)", p.HostPort, what).
			WithHint("Choose another port.")
	}
	for _, addr := range s.addrs(p) {
		if _, ok := s.Own[p.HostPort]; ok || p.has(addr) {
			continue
		}
		one, err := s.listen(ctx, p, netip.AddrPortFrom(addr, p.Port))
		if err == nil {
			p.add(addr, one)
		} else if first == nil {
			first = err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = first
	return first
}

// listen uses an inherited socket, or opens one. Multipath TCP (RFC 8684) is off: splice(2) needs plain
// TCP.
func (s *Server) listen(ctx context.Context, p *port, addr netip.AddrPort) (*socket, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	at := sockets.At{Network: string(p.Protocol), Addr: addr.String()}
	if p.Protocol == gateway.UDP {
		c, err := sockets.Open(s.Sockets, p.socketName(), at, func() (net.PacketConn, error) {
			return config.ListenPacket(ctx, "udp", addr.String())
		})
		if err != nil {
			return nil, s.Explain(ctx, "udp", addr, err)
		}
		table := s.newTable(p, c.(*net.UDPConn)) //nolint:forcetypeassert // of the network udp
		return &socket{Closer: c, serve: table.receive, table: table}, nil
	}
	l, err := sockets.Open(s.Sockets, p.socketName(), at, func() (net.Listener, error) {
		return config.Listen(ctx, "tcp", addr.String())
	})
	if err != nil {
		return nil, s.Explain(ctx, "tcp", addr, err)
	}
	return &socket{Closer: l, serve: func() { s.accept(p, l) }}, nil
}

// socketPrefixes begin the names of the sockets of forwarded ports.
var socketPrefixes = []string{string(gateway.TCP) + "-", string(gateway.UDP) + "-"} //nolint:gochecknoglobals // a constant table

// OwnSocket reports whether a name is that of a forwarded port's sockets.
func OwnSocket(name string) bool {
	return slices.ContainsFunc(socketPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// socketName has the VM, so that nothing that waits for one VM reaches the next one at the port.
func (p *port) socketName() string { return fmt.Sprintf("%s-%d-%s", p.Protocol, p.Port, p.VM) }

func (p *port) has(addr netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[addr] != nil
}

func (p *port) add(addr netip.Addr, one *socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[addr] = one
}

// serve serves the sockets that are not served yet.
func (p *port) serve(serving *sync.WaitGroup) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.open {
		if !one.served {
			one.served = true
			serving.Go(one.serve)
		}
	}
}

func (p *port) problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.open {
		_ = one.Close() // it ends serve, which is the purpose
	}
}

// pause is the time between two attempts when the host is out of descriptors or memory.
const pause = 50 * time.Millisecond

// over reports whether a socket is closed. After any other error it waits: it is the host's, and
// temporary.
func over(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return true
	}
	if err != nil {
		time.Sleep(pause)
	}
	return false
}
