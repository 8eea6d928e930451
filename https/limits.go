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
	outside *limit.Limit[source]

	mu   sync.Mutex
	live map[net.Conn]func() // value: gives its place back
	none chan struct{}       // closed when live becomes empty; nil while no call waits
}

// source is what shares maxConns: a peer. Through loopback, and without an address, each connection
// may be another client, and is a source of its own.
type source struct {
	peer gateway.Peer
	conn net.Conn // nil for a peer that is one client
}

func newConnCount() *connCount {
	return &connCount{outside: limit.New[source](maxConnsPerPeer, maxConns), live: map[net.Conn]func(){}}
}

// change is the ConnState of http.Server.
func (c *connCount) change(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		leave, ok := c.enter(conn)
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

// enter counts a connection. It is false above a limit; leave gives the place back.
func (c *connCount) enter(conn net.Conn) (leave func(), ok bool) {
	from := source{peer: gateway.PeerOf(conn)}
	if from.peer.VM != (gateway.ID{}) { // on a tap
		return func() {}, true
	}
	if !from.peer.Net.IsValid() || from.peer.Loopback() {
		from.conn = conn
	}
	return c.outside.Enter(from)
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
