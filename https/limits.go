package https

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"lodge/gateway"
)

// Limits that keep one client, or one VM, from shutting the others out. Connections from taps are limited at the door
// (gateway.FanIn) and take nothing from those of the outside.
const (
	maxConns         = 4096 // from outside
	maxConnsPerPeer  = 1024 // of these, from one IPv4 address or IPv6 /64; for loopback, where tunnels end, there is no such limit
	maxRequestsPerVM = 4096 // under way to one VM: each may hold a connection, and one HTTP/2 client can have hundreds
)

// connCount counts live connections, refuses those above the limits and tells when none is left.
type connCount struct {
	mu      sync.Mutex
	live    map[net.Conn]peer
	outside int
	peers   map[netip.Prefix]int
	none    chan struct{} // closed when live becomes empty; nil while nobody waits
}

// peer is what a connection is counted by.
type peer struct {
	tap bool
	net netip.Prefix // not valid for a tap, and for loopback
}

func peerOf(c net.Conn) peer {
	if gateway.IdentityOf(c).Known() {
		return peer{tap: true}
	}
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil || from.Addr().Unmap().IsLoopback() {
		return peer{}
	}
	addr, bits := from.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // bits fit the address
	return peer{net: prefix}
}

// change is for http.Server.ConnState.
func (c *connCount) change(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		p := peerOf(conn)
		if !p.tap && (c.outside >= maxConns || p.net.IsValid() && c.peers[p.net] >= maxConnsPerPeer) {
			_ = conn.Close() // refused before a word was said
		}
		c.add(conn, p)
	case http.StateHijacked, http.StateClosed:
		c.remove(conn)
	}
}

func (c *connCount) add(conn net.Conn, p peer) {
	if c.live == nil {
		c.live, c.peers = map[net.Conn]peer{}, map[netip.Prefix]int{}
	}
	c.live[conn] = p
	if !p.tap {
		c.outside++
	}
	if p.net.IsValid() {
		c.peers[p.net]++
	}
}

func (c *connCount) remove(conn net.Conn) {
	p, ok := c.live[conn]
	if !ok {
		return
	}
	delete(c.live, conn)
	if !p.tap {
		c.outside--
	}
	if p.net.IsValid() {
		if c.peers[p.net]--; c.peers[p.net] == 0 {
			delete(c.peers, p.net)
		}
	}
	if len(c.live) == 0 && c.none != nil {
		close(c.none)
		c.none = nil
	}
}

// wait returns when no connection is left, after limit, or when ctx ends.
func (c *connCount) wait(ctx context.Context, limit time.Duration) {
	c.mu.Lock()
	if len(c.live) == 0 {
		c.mu.Unlock()
		return
	}
	none := make(chan struct{})
	c.none = none
	c.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// requestCount counts the requests under way to each VM.
type requestCount struct {
	mu   sync.Mutex
	live map[gateway.ID]int
}

// enter counts one more, unless that is too many. Who is let in leaves.
func (c *requestCount) enter(id gateway.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live[id] >= maxRequestsPerVM {
		return false
	}
	if c.live == nil {
		c.live = map[gateway.ID]int{}
	}
	c.live[id]++
	return true
}

func (c *requestCount) leave(id gateway.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live[id]--; c.live[id] == 0 {
		delete(c.live, id)
	}
}
