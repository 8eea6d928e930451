// Package guard stands in front of mail servers that talk to strangers. Its listener counts connections, its
// connections have deadlines that a slow client cannot stretch, hang up on browsers, and end politely at shutdown.
//
// It never looks into a protocol beyond a client's first line.
package guard

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"lodge/gateway"
)

// Limits bound what one listener's clients can take. Every field must be set.
type Limits struct {
	Conns   int           // open at once
	PerPeer int           // open at once from one VM, IPv4 address or IPv6 /64
	Idle    time.Duration // the longest wait for a client to send or take anything
	Session time.Duration // the longest life of a connection
	Writes  int           // answers in one connection
}

// Listener wraps another one. BusyReply and HTTPReply are what a client is told before the line is cut, without the line end.
type Listener struct {
	net.Listener
	Limits    Limits
	BusyReply string
	HTTPReply string

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	peers    map[peer]int
	draining bool
}

// peer is what connections are counted by.
type peer struct {
	vm   gateway.ID
	addr netip.Prefix
}

// Accept waits for a connection that is within the limits. It returns a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	g, err := l.AcceptGuarded()
	if err != nil {
		return nil, err // a nil *Conn must not become a net.Conn
	}
	return g, nil
}

// AcceptGuarded is Accept for servers that need the guard itself.
func (l *Listener) AcceptGuarded() (*Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err // servers look for net.ErrClosed and net.Error
		}
		if g := l.admit(c); g != nil {
			return g, nil
		}
		_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // a full send buffer of a new socket: not worth waiting for
		_, _ = c.Write([]byte(l.BusyReply + "\r\n"))        // a courtesy
		_ = c.Close()
	}
}

func (l *Listener) admit(c net.Conn) *Conn {
	p := peerOf(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns, l.peers = map[*Conn]struct{}{}, map[peer]int{}
	}
	if l.draining || len(l.conns) >= l.Limits.Conns || l.peers[p] >= l.Limits.PerPeer {
		return nil
	}
	g := &Conn{Conn: c, listener: l, peer: p, end: time.Now().Add(l.Limits.Session), writes: l.Limits.Writes}
	l.conns[g] = struct{}{}
	l.peers[p]++
	return g
}

func (l *Listener) release(g *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.conns[g]; !ok {
		return
	}
	delete(l.conns, g)
	if l.peers[g.peer]--; l.peers[g.peer] == 0 {
		delete(l.peers, g.peer)
	}
}

// Drain closes the listener and lets every connection that is not Busy run into its read deadline now; busy ones
// follow when their work is done.
func (l *Listener) Drain() error {
	l.mu.Lock()
	l.draining = true
	for g := range l.conns {
		g.drain()
	}
	l.mu.Unlock()
	return l.Close()
}

// Cut closes every connection.
func (l *Listener) Cut() {
	l.mu.Lock()
	conns := make([]*Conn, 0, len(l.conns))
	for g := range l.conns {
		conns = append(conns, g)
	}
	l.mu.Unlock()
	for _, g := range conns {
		_ = g.Close() // cutting; nothing to do about an error
	}
}

// Count says how many connections are open.
func (l *Listener) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func peerOf(c net.Conn) peer {
	if vm := gateway.IdentityOf(c); vm.Known() {
		return peer{vm: vm.ID}
	}
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return peer{} // not IP: a pipe or a unix socket; all of them count as one
	}
	addr, bits := ap.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // bits fit the address
	return peer{addr: prefix}
}
