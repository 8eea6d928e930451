package forward

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"lodge/gateway"
)

// Add opens a port of the host, and records that it leads to the VM. After an error, neither is so.
// Errors: KindInvalid, KindConflict for a port of lodged or of another program, KindTaken for one
// that leads to a VM already, KindNotFound for a VM that is removed.
func (s *Server) Add(ctx context.Context, f gateway.Forward) (gateway.ForwardStatus, error) {
	if err := f.Check(); err != nil {
		return gateway.ForwardStatus{}, err
	}
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.shut {
		return gateway.ForwardStatus{}, gateway.Errorf(gateway.KindUnavailable, "lodged is stopping")
	}
	if have, ok := s.port(f.HostPort); ok {
		return gateway.ForwardStatus{}, s.errTaken(have.Forward)
	}
	p := newPort(f)
	if err := s.open(ctx, p); err != nil {
		s.remove(p)
		return gateway.ForwardStatus{}, err
	}
	if err := s.record(context.WithoutCancel(ctx), p); err != nil {
		s.remove(p)
		return gateway.ForwardStatus{}, err
	}
	s.show(p)
	s.log(p).Info("port was forwarded")
	return s.status(p), nil
}

// record claims the port. RemoveVM waits for the caller's lock, and a VM is marked before it is
// called: a claim that comes after it finds the mark.
func (s *Server) record(ctx context.Context, p *port) error {
	if err := s.Claims.Claim(ctx, p.Forward); err != nil {
		return err
	}
	if vm, ok := s.Directory.ByID(p.VM); ok && vm.Desired != gateway.Removed {
		return nil
	}
	if err := s.Claims.Release(ctx, p.HostPort); err != nil {
		return err
	}
	return gateway.Errorf(gateway.KindNotFound, "the VM is removed")
}

func (s *Server) errTaken(have gateway.Forward) error {
	to := "another VM"
	if vm, ok := s.Directory.ByID(have.VM); ok {
		to = fmt.Sprintf("port %d of %s", have.VMPort, vm.Name)
	}
	return gateway.Errorf(gateway.KindTaken, "port %s of the host leads to %s already", have.HostPort, to).
		WithHint("Choose another port, or remove that forward: lodge forward rm %s", have.HostPort)
}

// Remove closes a port, cuts off what it has open and removes its record.
func (s *Server) Remove(ctx context.Context, at gateway.HostPort) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	p, ok := s.port(at)
	if !ok {
		return gateway.Errorf(gateway.KindNotFound, "port %s of the host is not forwarded", at).
			WithHint("lodge forward ls lists the forwarded ports.")
	}
	if err := s.Claims.Release(context.WithoutCancel(ctx), at); err != nil {
		return err
	}
	s.hide(p)
	s.remove(p)
	s.log(p).Info("forward was removed")
	return nil
}

// RemoveVM removes all forwards of a VM, which the Directory has marked as removed.
func (s *Server) RemoveVM(ctx context.Context, id gateway.ID) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	for _, p := range s.all() {
		if p.VM == id {
			s.hide(p)
			s.remove(p)
		}
	}
	if err := s.Claims.ReleaseVM(ctx, id); err != nil {
		return fmt.Errorf("release forwards: %w", err)
	}
	return nil
}

// List returns the forwards, ordered by port.
func (s *Server) List() []gateway.ForwardStatus {
	var all []gateway.ForwardStatus
	for _, p := range s.all() {
		all = append(all, s.status(p))
	}
	return all
}

func (s *Server) status(p *port) gateway.ForwardStatus {
	return gateway.ForwardStatus{Forward: p.Forward, Addrs: s.addrs(p), Err: p.problem()}
}

func (s *Server) port(at gateway.HostPort) (*port, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.ports[at]
	return p, ok
}

// all returns the ports in order.
func (s *Server) all() []*port {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.ports), func(a, b *port) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
}

// show adds a port, and serves what is open of it. The caller holds changing.
func (s *Server) show(p *port) {
	s.mu.Lock()
	s.ports[p.HostPort] = p
	s.mu.Unlock()
	p.serve(&s.serving)
}

// remove closes a port for good. hide leaves it open for the daemon after this one.
func (s *Server) remove(p *port) {
	p.close()
	s.Sockets.Remove(p.socketName())
}

// hide stops serving a port and ends its sessions. The caller holds changing.
func (s *Server) hide(p *port) {
	s.mu.Lock()
	delete(s.ports, p.HostPort)
	s.mu.Unlock()
	p.close()
	s.endSessions(func(one *session) bool { return one.port == p })
}
