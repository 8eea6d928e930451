// Package guard stands in front of mail servers that talk to strangers. Its listener counts connections, its
// connections have deadlines that a slow client cannot stretch, hang up on browsers, and end politely at shutdown.
//
// It never looks into a protocol beyond a client's first line.
package guard

import (
	"bytes"
	"errors"
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

// Listener wraps another one. Busy and HTTP are what a client is told before the line is cut, without the line end.
type Listener struct {
	net.Listener
	Limits Limits
	Busy   string
	HTTP   string

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
		_, _ = c.Write([]byte(l.Busy + "\r\n"))             // a courtesy
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

// Conn is a guarded connection.
type Conn struct {
	net.Conn
	listener *Listener
	peer     peer
	end      time.Time

	first   []byte // of the client's first line, as far as it has come; used by Read alone
	checked bool

	mu       sync.Mutex
	busy     bool      // in a transfer that shutdown must not cut
	until    time.Time // the transfer's own limit
	writes   int       // left
	draining bool
}

// NetConn gives the connection beneath.
func (g *Conn) NetConn() net.Conn { return g.Conn }

// Begin says that a transfer starts, which must end within limit and which shutdown lets finish.
func (g *Conn) Begin(limit time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy, g.until = true, time.Now().Add(limit)
}

// End says that the transfer is over.
func (g *Conn) End() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy, g.until = false, time.Time{}
}

var errWrites = errors.New("too many commands in one session")

// Read reads within the deadlines, and looks for an HTTP request in the first line.
func (g *Conn) Read(p []byte) (int, error) {
	g.mu.Lock()
	err := g.Conn.SetReadDeadline(g.deadline())
	g.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := g.Conn.Read(p)
	if !g.checked && g.isHTTP(p[:n]) {
		_, _ = g.Write([]byte(g.listener.HTTP + "\r\n")) // a courtesy
		_ = g.Close()                                    // the read gives the error that matters
		return 0, net.ErrClosed
	}
	return n, err // servers look for io.EOF and net.Error
}

// Write writes within the idle limit, and fails after too many writes.
func (g *Conn) Write(p []byte) (int, error) {
	g.mu.Lock()
	g.writes--
	spent := g.writes < 0
	g.mu.Unlock()
	if spent {
		_ = g.Close() // the error below matters
		return 0, errWrites
	}
	if err := g.Conn.SetWriteDeadline(time.Now().Add(g.listener.Limits.Idle)); err != nil {
		return 0, err
	}
	return g.Conn.Write(p)
}

// SetDeadline does nothing: the guard's own deadlines hold, whatever the server thinks.
func (g *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing, as SetDeadline.
func (g *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing, as SetDeadline.
func (g *Conn) SetWriteDeadline(time.Time) error { return nil }

// Close closes the connection and gives its place back.
func (g *Conn) Close() error {
	g.listener.release(g)
	return g.Conn.Close()
}

// deadline is when the next read must be done. The caller holds g.mu.
func (g *Conn) deadline() time.Time {
	now := time.Now()
	if g.draining && !g.busy {
		return now
	}
	d := now.Add(g.listener.Limits.Idle)
	if g.busy && g.until.Before(d) {
		d = g.until
	}
	if g.end.Before(d) {
		d = g.end
	}
	return d
}

func (g *Conn) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	if !g.busy {
		_ = g.Conn.SetReadDeadline(time.Now()) // fails on a closed one only
	}
}

// isHTTP adds a piece to the first line and judges it. A server acts on no line before its end, so one that comes in
// pieces is caught in time. One that is longer than any mail client's first counts as HTTP: it could be a long URL.
func (g *Conn) isHTTP(piece []byte) bool {
	const enough = 1 << 10
	g.first = append(g.first, piece[:min(len(piece), enough)]...)
	ended := bytes.IndexByte(g.first, '\n') >= 0
	g.checked = ended || len(g.first) >= enough
	found := isHTTP(g.first) || g.checked && !ended
	if g.checked {
		g.first = nil
	}
	return found
}

// isHTTP reports whether a client's first bytes are an HTTP request: forged requests of a browser or a server-side
// fetch carry mail commands behind it (design: identity by tap makes such forgery worth trying).
func isHTTP(first []byte) bool {
	line, _, _ := bytes.Cut(first, []byte("\n"))
	if bytes.Contains(line, []byte(" HTTP/")) {
		return true
	}
	for _, method := range []string{"GET /", "POST /", "PUT /", "HEAD /", "OPTIONS ", "DELETE /", "PATCH /", "CONNECT ", "TRACE /"} {
		if bytes.HasPrefix(line, []byte(method)) {
			return true
		}
	}
	return false
}
