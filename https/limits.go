package https

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
)

// Limits that keep one client, or one VM, from shutting the others out. Connections from taps are limited by
// gateway.FanIn and take nothing from those of the outside.
const (
	maxConns         = 4096 // from outside
	maxConnsPerPeer  = 1024 // of these, from one peer; loopback, where tunnels end, has no such limit
	maxRequestsPerVM = 4096 // under way to one VM: each may hold a connection, and one HTTP/2 client can have hundreds
)

// connCount closes connections above the limits, and reports when none is left.
type connCount struct {
	outside *limit.Limit[struct{}]     // all of them
	peers   *limit.Limit[gateway.Peer] // but loopback

	mu   sync.Mutex
	live map[net.Conn]func() // how to leave the limits
	none chan struct{}       // closed when live becomes empty; nil while no call waits
}

func newConnCount() *connCount {
	return &connCount{
		outside: limit.New[struct{}](0, maxConns), peers: limit.New[gateway.Peer](maxConnsPerPeer, 0), live: map[net.Conn]func(){},
	}
}

// change is for http.Server.ConnState.
func (c *connCount) change(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		leave, ok := c.enter(gateway.PeerOf(conn))
		if !ok {
			_ = conn.Close() // rejected before any data was read
			leave = func() {}
		}
		c.mu.Lock()
		c.live[conn] = leave
		c.mu.Unlock()
	case http.StateHijacked, http.StateClosed:
		c.remove(conn)
	}
}

// enter counts one more connection of p, unless that is too many. leave gives the place back.
func (c *connCount) enter(p gateway.Peer) (leave func(), ok bool) {
	if p.VM != (gateway.ID{}) { // on a tap
		return func() {}, true
	}
	leaveAll, ok := c.outside.Enter(struct{}{})
	if !ok || !p.Net.IsValid() || p.Loopback() {
		return leaveAll, ok
	}
	leavePeer, ok := c.peers.Enter(p)
	if !ok {
		leaveAll()
		return nil, false
	}
	return func() { leavePeer(); leaveAll() }, true
}

func (c *connCount) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	leave, ok := c.live[conn]
	if !ok {
		return
	}
	leave()
	delete(c.live, conn)
	if len(c.live) == 0 && c.none != nil {
		close(c.none)
		c.none = nil
	}
}

// wait returns when no connection is left, after atMost, or when ctx ends.
func (c *connCount) wait(ctx context.Context, atMost time.Duration) {
	c.mu.Lock()
	if len(c.live) == 0 {
		c.mu.Unlock()
		return
	}
	none := make(chan struct{})
	c.none = none
	c.mu.Unlock()
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	case <-ctx.Done():
	}
}
