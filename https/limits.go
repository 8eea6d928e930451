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

// Limits that keep one client, or one VM, from using all connections. gateway.FanIn limits
// connections from taps; they are not counted here.
const (
	maxConns         = 4096 // from outside
	maxConnsPerPeer  = 1024 // of these, from one peer; not for loopback, where tunnels end
	maxRequestsPerVM = 4096 // at once; one HTTP/2 client can have hundreds
)

// connCount closes connections above the limits, and reports when no connection is left.
type connCount struct {
	outside *limit.Limit[struct{}]     // in all
	peers   *limit.Limit[gateway.Peer] // except loopback

	mu   sync.Mutex
	live map[net.Conn]func() // value: gives its place back
	none chan struct{}       // closed when live becomes empty; nil while no call waits
}

func newConnCount() *connCount {
	return &connCount{
		outside: limit.New[struct{}](0, maxConns), peers: limit.New[gateway.Peer](maxConnsPerPeer, 0), live: map[net.Conn]func(){},
	}
}

// change is the ConnState of http.Server.
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

// enter counts a connection of p. It is false above a limit; leave gives the place back.
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

// count is the number of open connections.
func (c *connCount) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.live)
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
