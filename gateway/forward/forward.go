// Package forward leads ports of the host to ports of VMs, for what is not HTTP.
//
// A forward is recorded once its port is open, and the port is opened again at each start. A TCP
// connection is dialled to the VM through its tap and copied by the kernel, half-closes included. A
// UDP datagram belongs to the flow of its sender's address and port; each flow has a socket of its
// own on the tap. Connections and flows are limited per peer, per forward and in all.
//
// It never listens on a port of lodged's own, never opens what the VM's record does not allow now,
// and never sends a datagram to an address from which none has come just now.
package forward

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
	"lodge/gateway/relay"
	"lodge/gateway/sockets"
)

// Limits per forward. A TCP connection takes two sockets and two pipes.
const (
	maxConns        = 1024
	maxConnsPerPeer = 128
	maxFlows        = 1024
	maxFlowsPerPeer = 64
)

// retryAfter is the time between two attempts to open what could not be opened.
const retryAfter = 10 * time.Second

// Claims keeps the forwards on disk; store.Forwards does. Each call returns once it is synced.
type Claims interface {
	All(ctx context.Context) ([]gateway.Forward, error)
	// Claim fails with KindTaken when the host's port leads to a VM already.
	Claim(ctx context.Context, f gateway.Forward) error
	Release(ctx context.Context, port gateway.HostPort) error
	ReleaseVM(ctx context.Context, vm gateway.ID) error
}

// Config is what a Server needs. All fields but Dial and Sockets are required.
type Config struct {
	Directory *gateway.Directory
	Claims    Claims
	Addrs     []netip.Addr                // of the host, for forwards that name none
	Own       map[gateway.HostPort]string // lodged's own ports, with the settings that choose them
	// Dial connects to a port of a VM, by "tcp4" or "udp4". The default goes through the VM's tap.
	Dial func(ctx context.Context, network string, vm gateway.VM, port uint16) (net.Conn, error)
	// Explain makes an error of listen(2) or bind(2) one for a person.
	Explain func(ctx context.Context, network string, at netip.AddrPort, err error) error
	Sockets *sockets.Set // keeps the ports open over a restart of the daemon; nil: nothing does
	Logger  *slog.Logger
}

// Server forwards ports. It is safe for concurrent use.
type Server struct {
	Config
	streams *limit.Limit[gateway.HostPort] // connections of all forwards
	flows   *limit.Limit[gateway.HostPort] // flows of all forwards
	life    flowLife

	changing sync.Mutex // held from the sockets of a change to its record; also guards shut
	shut     bool
	serving  sync.WaitGroup

	mu       sync.Mutex
	ports    map[gateway.HostPort]*port
	sessions map[*session]struct{}
}

// New returns a Server. Run opens its ports.
func New(cfg Config) *Server {
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, network string, vm gateway.VM, port uint16) (net.Conn, error) {
			return relay.Dial(ctx, network, vm.Tap(), netip.AddrPortFrom(vm.Addr, port))
		}
	}
	s := &Server{
		Config:  cfg,
		streams: limit.New[gateway.HostPort](0, share(32)),
		flows:   limit.New[gateway.HostPort](0, share(16)),
		life:    defaultFlowLife(),
		ports:   map[gateway.HostPort]*port{}, sessions: map[*session]struct{}{},
	}
	cfg.Directory.Watch(s.follow)
	return s
}

// share is a part of the process's file descriptors.
func share(part uint64) int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return maxConns // getrlimit(2) fails for bad arguments only
	}
	return int(min(files.Cur/part, math.MaxInt)) //nolint:gosec // the line has the check
}

// Run opens the recorded ports, and again those that could not be opened, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := s.restore(ctx); err != nil {
		return err
	}
	retry := time.NewTicker(retryAfter)
	defer retry.Stop()
	for {
		select {
		case <-retry.C:
			s.reopen(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// restore opens the recorded ports, and closes those that the daemon before this one had beside them. A
// record without a VM is one that a crash has left.
func (s *Server) restore(ctx context.Context) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	all, err := s.Claims.All(ctx)
	if err != nil {
		return fmt.Errorf("read forwards: %w", err)
	}
	for _, f := range all {
		if _, ok := s.Directory.ByID(f.VM); !ok {
			if err := s.Claims.Release(ctx, f.HostPort); err != nil {
				return fmt.Errorf("release a forward: %w", err)
			}
			continue
		}
		if _, ok := s.port(f.HostPort); ok { // added before this ran
			continue
		}
		if s.shut {
			return nil
		}
		p := newPort(f)
		if err := s.open(ctx, p); err != nil {
			s.log(p).Warn("forwarded port was not opened", "err", err)
		}
		s.show(p)
	}
	s.Sockets.CloseRest(socketPrefixes...)
	return nil
}

// reopen tries again what could not be opened.
func (s *Server) reopen(ctx context.Context) {
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, p := range s.all() { // none after Shutdown
		if p.problem() == nil {
			continue
		}
		err := s.open(ctx, p)
		p.serve(&s.serving) // on some addresses, perhaps
		if err == nil {
			s.log(p).Info("forwarded port was opened")
		}
	}
}

// Shutdown stops serving the ports, which Sockets keeps open, and cuts off what is open through them: a
// stream of bytes has no point at which it could end.
func (s *Server) Shutdown(context.Context) error {
	s.changing.Lock()
	s.shut = true
	for _, p := range s.all() {
		s.hide(p)
	}
	s.changing.Unlock()
	s.serving.Wait()
	return nil
}

// follow is called after each change of a VM. It ends what belongs to an earlier run of it. An
// ordinary stop leaves connections to the guest, which ends its services in order.
func (s *Server) follow(_, now gateway.VM) {
	s.endSessions(func(one *session) bool {
		if one.vm.ID != now.ID {
			return false
		}
		return now.Desired == gateway.Removed || now.Incarnation != one.vm.Incarnation || now.Desired == gateway.Stopped && now.ForceStop
	})
}

// target returns the VM of a forward, if it should run now.
func (s *Server) target(p *port) (gateway.VM, bool) {
	vm, ok := s.Directory.ByID(p.VM)
	return vm, ok && vm.Desired == gateway.Running
}

// log is a logger for events of a port.
func (s *Server) log(p *port) *slog.Logger {
	vm, _ := s.Directory.ByID(p.VM) // a VM takes its ports with it
	return s.Logger.With(gateway.LogVM(vm.Identity), "addr", p.String())
}

// session is one connection or one flow.
type session struct {
	port *port
	vm   gateway.VM
	end  context.CancelFunc
}

// begin makes a session; its context ends when the session may last no longer. done gives up its
// places in the limits. It is false above a limit, or when the port is closed.
func (s *Server) begin(p *port, vm gateway.VM, from client, all *limit.Limit[gateway.HostPort]) (ctx context.Context, done func(), ok bool) {
	leave, ok := p.clients.Enter(from)
	if !ok {
		return nil, nil, false
	}
	leaveAll, ok := all.Enter(p.HostPort)
	if !ok {
		leave()
		return nil, nil, false
	}
	ctx, end := context.WithCancel(context.Background())
	one := &session{port: p, vm: vm, end: end}
	done = func() {
		s.mu.Lock()
		delete(s.sessions, one)
		s.mu.Unlock()
		end()
		leave()
		leaveAll()
	}
	s.mu.Lock()
	closed := s.ports[p.HostPort] != p
	s.sessions[one] = struct{}{}
	s.mu.Unlock()
	// The VM may have changed since it was looked up. From here on, follow ends the session.
	if now, ok := s.target(p); closed || !ok || now.Incarnation != vm.Incarnation {
		done()
		return nil, nil, false
	}
	return ctx, done, true
}

// endSessions ends those for which which returns true.
func (s *Server) endSessions(which func(*session) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.sessions {
		if which(one) {
			one.end()
		}
	}
}

// client is who shares the places of a forward: a peer. On loopback, where tunnels end, each
// connection may be another client, and has its port as well.
type client struct {
	peer gateway.Peer
	from netip.AddrPort
}

func clientOf(from netip.AddrPort) client {
	c := client{peer: gateway.PeerAt(from.Addr())}
	if c.peer.Loopback() {
		c.from = from
	}
	return c
}
