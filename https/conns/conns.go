// Package conns guards the connections of a web server that faces strangers.
//
// A Listener makes the TLS handshake before net/http has the connection. A newcomer is never turned
// away: when all places are taken, the peer that holds most of them loses the connection that is
// idle the longest. What a client owes (its handshake, a request body, reading its answer) must make
// progress; the guard looks several times a second and cuts what does not. A connection on which
// nothing is due, such as a quiet WebSocket or event stream, may stay for ever.
//
// It sets no deadline on a connection: those are net/http's. It counts no connection from a tap:
// gateway.TapListeners limit them.
package conns

import (
	"context"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"lodge/gateway"
)

// Reason is why the guard closed a connection, or ended a request of HTTP/2.
type Reason string

// The reasons.
const (
	Full       Reason = "full"       // all places were taken
	Share      Reason = "share"      // its peer had its share of the places
	Handshakes Reason = "handshakes" // the same for the places of handshakes
	Handshake  Reason = "handshake"  // the handshake did not proceed
	Body       Reason = "body"       // the request body did not arrive
	Answer     Reason = "answer"     // the client did not read
)

// Reasons returns all reasons.
func Reasons() []Reason { return []Reason{Full, Share, Handshakes, Handshake, Body, Answer} }

const (
	shares         = 16    // one peer holds at most this part of the places
	minShare       = 8     // but this many, as browsers open several at once
	handshakeParts = 4     // this part of the places is for handshakes
	minPlaces      = 256   // of either kind: one client may open many connections at once
	maxPlaces      = 16384 // an idle connection takes some 30 KiB
)

// Places is how many connections a process can have from outside: an eighth of its descriptors. Each
// may need another one to a VM, and the VMs' own connections may take half of all.
func Places() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return minPlaces // getrlimit(2) fails for bad arguments only
	}
	return int(max(minPlaces, min(files.Cur/8, maxPlaces, math.MaxInt))) //nolint:gosec // the line has the check
}

// Guard guards the connections of its listeners. It is safe for concurrent use; make it with New.
type Guard struct {
	proxy  func(netip.Addr) bool
	onCut  func(Reason)
	logger *slog.Logger
	start  time.Time
	stop   func()

	mu      sync.Mutex
	open    map[*Conn]struct{}
	all     places
	shaking places
	serving int           // open, without those that left HTTP
	none    chan struct{} // closed when serving becomes 0; nil while no call waits
}

// New returns a Guard with a number of places. proxy reports whether an address outside loopback
// stands for many clients, as loopback does. The Guard calls onCut for each connection or request that
// it ends. Call Close when done.
func New(number int, proxy func(netip.Addr) bool, onCut func(Reason), logger *slog.Logger) *Guard {
	g := &Guard{
		proxy: proxy, onCut: onCut, logger: logger, start: time.Now(), open: map[*Conn]struct{}{},
		all: newPlaces(number), shaking: newPlaces(max(number/handshakeParts, minPlaces)),
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { g.watch(ctx) })
	g.stop = func() {
		cancel()
		watching.Wait()
	}
	return g
}

// Close ends the guard, not the connections.
func (g *Guard) Close() { g.stop() }

// now is the time since the guard's start, never 0.
func (g *Guard) now() int64 { return int64(time.Since(g.start)) + 1 }

// State is the ConnState of http.Server.
func (g *Guard) State(nc net.Conn, state http.ConnState) {
	c := of(nc)
	if c == nil {
		return
	}
	switch state {
	case http.StateIdle:
		c.owesBody.Store(false)
	case http.StateHijacked:
		c.owesBody.Store(false)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.served(c)
	}
}

// Count is the number of open connections.
func (g *Guard) Count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}

// Wait returns when each connection is closed or has left HTTP, after atMost, or when ctx ends.
func (g *Guard) Wait(ctx context.Context, atMost time.Duration) {
	g.mu.Lock()
	if g.serving == 0 {
		g.mu.Unlock()
		return
	}
	none := make(chan struct{})
	g.none = none
	g.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Admit makes a connection a guarded one that http.Server does not serve, such as one of QUIC. The caller
// closes it.
func (g *Guard) Admit(raw net.Conn) *Conn { return g.admit(raw, false) }

// admit makes raw a guarded connection, and cuts those that have to go for it.
func (g *Guard) admit(raw net.Conn, shakes bool) *Conn {
	c := &Conn{Conn: raw, guard: g}
	c.peer, c.many = g.peerOf(raw)
	c.shaking.Store(shakes)
	c.last.Store(g.now())
	for _, cut := range g.enter(c, shakes) {
		cut()
	}
	return c
}

// peerOf returns the peer of a connection, and whether it stands for many: tunnels end at loopback,
// and a pipe has no address. A proxy is a peer without its neighbours in the /64.
func (g *Guard) peerOf(c net.Conn) (_ gateway.Peer, many bool) {
	peer := gateway.PeerOf(c)
	if peer.VM != (gateway.ID{}) {
		return peer, false
	}
	if peer.Loopback() || !peer.Net.IsValid() {
		return peer, true
	}
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	addr := from.Addr().Unmap().WithZone("")
	if err != nil || !g.proxy(addr) {
		return peer, false
	}
	return gateway.Peer{Net: netip.PrefixFrom(addr, addr.BitLen())}, true
}

// enter counts c. It returns what cuts the connections that lost their places for it.
func (g *Guard) enter(c *Conn, shakes bool) (cuts []func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open[c] = struct{}{}
	g.serving++
	if c.peer.VM != (gateway.ID{}) { // on a tap
		return nil
	}
	displaced := func(old *Conn, why Reason) {
		if old != nil {
			g.all.remove(old)
			g.shaking.remove(old)
			cuts = append(cuts, func() { old.cut(why) })
		}
	}
	old, own := g.all.add(c)
	if own {
		displaced(old, Share)
	} else {
		displaced(old, Full)
	}
	if shakes {
		old, _ = g.shaking.add(c)
		displaced(old, Handshakes)
	}
	return cuts
}

// shaken ends the handshake of c, well or not.
func (g *Guard) shaken(c *Conn) {
	g.mu.Lock()
	g.shaking.remove(c)
	g.mu.Unlock()
	c.in.reset()
	c.out.reset()
	c.shaking.Store(false)
}

// remove is for a closed connection.
func (g *Guard) remove(c *Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all.remove(c)
	g.shaking.remove(c)
	delete(g.open, c)
	g.served(c)
}

// served counts c as one that Wait need not wait for, once. The caller holds g.mu.
func (g *Guard) served(c *Conn) {
	if c.served {
		return
	}
	c.served = true
	if g.serving--; g.serving == 0 && g.none != nil {
		close(g.none)
		g.none = nil
	}
}
