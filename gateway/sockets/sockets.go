// Package sockets keeps listening sockets over a restart of the daemon, so that none of them refuses
// a connection: the kernel holds newcomers in the backlog, and datagrams in the buffer.
//
// A service opens its sockets by Open, under the name of what they are for. Each is duplicated, so
// that it outlives the service, and put into a Store. The next daemon calls Inherit with what it was
// passed, and its services get those sockets when they open the same addresses under the same names.
// CloseRest then closes what no service has opened.
//
// An inherited socket is never used under another name: what waits in it was meant for what the name
// stands for. Where a socket is bound to an interface, the interface's index is part of its address;
// a new interface has a new index, whatever its name.
package sockets

import (
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Taps begins the names of the sockets on taps. The rest is the VM's UUID.
const Taps = "tap-"

// MaxStored is how many sockets are put into the Store, of which those on taps take three quarters at
// most. systemd compares each new one with all that it has, by kcmp(2): the time grows with the
// square, and 6,000 would keep it busy for seconds.
const MaxStored = 1024

// At is where a socket listens, as the kernel has it.
type At struct {
	Network string // "tcp", "udp" or "unix"
	Addr    string // as String of its net.Addr
	Device  int    // index of the interface to which it is bound; 0 for none
}

// Store holds sockets while no daemon runs.
type Store interface {
	// Add holds a duplicate of fd.
	Add(name string, fd int)
	// Remove closes all of a name, perhaps a moment later.
	Remove(name string)
}

// Set has the listening sockets of this daemon, and those of the daemon before it. It is safe for
// concurrent use. A nil *Set keeps and inherits nothing.
type Set struct {
	store Store // may be nil

	mu      sync.Mutex
	all     map[At]*socket
	storing bool
	stored  int
	leaving map[At]time.Time // when the Store was told to close what was there
}

// socket is a duplicate of a service's.
type socket struct {
	name   string
	fd     int
	spare  io.Closer // inherited, for the service that opens it
	stored bool
}

// New returns an empty Set. store may be nil.
func New(store Store) *Set {
	return &Set{store: store, all: map[At]*socket{}, leaving: map[At]time.Time{}}
}

// Inherit adds s, a net.Listener or a net.PacketConn of the daemon before this one. stored means that
// the Store has it. Of two that are the same, the first counts.
func (s *Set) Inherit(name string, inherited io.Closer, stored bool) error {
	fd, at, err := inspect(inherited)
	if err != nil {
		return errors.Join(err, inherited.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[at] != nil {
		return errors.Join(unix.Close(fd), inherited.Close())
	}
	s.all[at] = &socket{name: name, fd: fd, spare: inherited, stored: stored}
	if stored {
		s.stored++
	}
	return nil
}

// Open returns the inherited socket of that name and address, else the one that open opens, and keeps
// it until Remove. An inherited socket with another name at that address is closed. With an empty
// name nothing is inherited or kept.
func Open[T io.Closer](s *Set, name string, at At, open func() (T, error)) (T, error) {
	if s == nil {
		return open()
	}
	if inherited, ok := s.take(name, at).(T); ok {
		return inherited, nil
	}
	opened, err := open()
	for errors.Is(err, syscall.EADDRINUSE) && s.leaves(at) {
		time.Sleep(10 * time.Millisecond)
		opened, err = open()
	}
	if err != nil || name == "" {
		return opened, err
	}
	if err := s.keep(name, opened); err != nil {
		var none T
		return none, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// take returns nil if there is none.
func (s *Set) take(name string, at At) io.Closer {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.all[at]
	switch {
	case have == nil || have.spare == nil:
		return nil
	case have.name != name:
		s.drop(func(_ At, other *socket) bool { return other == have })
		return nil
	}
	spare := have.spare
	have.spare = nil
	return spare
}

func (s *Set) keep(name string, opened io.Closer) error {
	fd, at, err := inspect(opened)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := &socket{name: name, fd: fd}
	s.all[at] = one
	if s.storing {
		s.put(one)
	}
	return nil
}

// Store puts the sockets into the Store, and from now on each that is opened. A start that fails
// before leaves the Store as it was.
func (s *Set) Store() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storing = true
	for _, one := range s.sorted() {
		s.put(one)
	}
}

// put does nothing for a socket that the Store has. The caller holds mu.
func (s *Set) put(one *socket) {
	most := MaxStored
	if strings.HasPrefix(one.name, Taps) {
		most -= MaxStored / 4
	}
	if s.store == nil || one.stored || s.stored >= most {
		return
	}
	s.store.Add(one.name, one.fd)
	one.stored = true
	s.stored++
}

// Remove closes all sockets of a name, for good. The service has closed its own. Nothing connects to
// them from here on, although the Store may have them for a moment more.
func (s *Set) Remove(name string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(func(_ At, one *socket) bool {
		if one.name == name {
			_ = unix.Shutdown(one.fd, unix.SHUT_RDWR) // ENOTCONN for UDP
		}
		return one.name == name
	})
}

// CloseRest closes the inherited sockets whose names begin with one of the prefixes and that no
// service has opened.
func (s *Set) CloseRest(prefixes ...string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(func(_ At, one *socket) bool {
		return one.spare != nil && slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(one.name, p) })
	})
}

// drop closes the sockets for which which returns true, in the Store too. That removes all of a name,
// so the others are added again. The caller holds mu.
func (s *Set) drop(which func(At, *socket) bool) {
	now := time.Now()
	maps.DeleteFunc(s.leaving, func(_ At, since time.Time) bool { return now.Sub(since) > leaveLimit })
	names := map[string]bool{}
	for at, one := range s.all {
		if !which(at, one) {
			continue
		}
		one.close()
		delete(s.all, at)
		s.leaving[at] = now
		names[one.name] = true
		if one.stored {
			s.stored--
		}
	}
	if s.store == nil {
		return
	}
	for name := range names {
		s.store.Remove(name)
	}
	for _, one := range s.all {
		if names[one.name] && one.stored {
			s.store.Add(one.name, one.fd)
		}
	}
}

// leaveLimit is how long systemd may take to close a socket in the background.
const leaveLimit = 5 * time.Second

// leaves reports whether the Store was just told to close what was at an address.
func (s *Set) leaves(at At) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, ok := s.leaving[at]
	return ok && s.store != nil && time.Since(since) < leaveLimit
}

// Each calls f with each socket, ordered by name, so that f can pass it on.
func (s *Set) Each(f func(name string, fd int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sorted() {
		f(one.name, one.fd)
	}
}

func (s *Set) sorted() []*socket {
	return slices.SortedFunc(maps.Values(s.all), func(a, b *socket) int { return strings.Compare(a.name, b.name) })
}

// Close closes the duplicates, and what no service has opened. The Store keeps its own.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		one.close()
	}
	clear(s.all)
}

func (one *socket) close() {
	_ = unix.Close(one.fd) // a duplicate
	if one.spare != nil {
		_ = one.spare.Close() // nothing was accepted
	}
}

// inspect duplicates a socket, and returns where it listens. It does not use File, whose Fd makes the
// shared socket blocking.
func inspect(s io.Closer) (fd int, at At, err error) {
	conn, ok := s.(syscall.Conn)
	if !ok {
		return 0, At{}, errors.ErrUnsupported
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, At{}, err
	}
	listening := 1
	var failed error
	err = raw.Control(func(own uintptr) {
		at.Device, failed = unix.GetsockoptInt(int(own), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX) //nolint:gosec // a descriptor
		if _, stream := s.(net.Listener); stream && failed == nil {
			listening, failed = unix.GetsockoptInt(int(own), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) //nolint:gosec // as above
		}
		if failed == nil {
			fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, At{}, err
	}
	addr := addrOf(s)
	at.Network, at.Addr = addr.Network(), addr.String()
	if listening == 0 { // Remove has shut it down, and a crash has left it: at no address that one could open
		at.Network = ""
	}
	return fd, at, nil
}

func addrOf(s io.Closer) net.Addr {
	if c, ok := s.(net.PacketConn); ok {
		return c.LocalAddr()
	}
	return s.(net.Listener).Addr() //nolint:forcetypeassert // the other kind
}
