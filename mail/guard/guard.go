// Package guard stands in front of mail servers that face strangers. A Listener limits how many
// connections are open; a Conn has deadlines that a slow client cannot stretch, closes on HTTP
// requests, and ends politely at shutdown. A Server runs a protocol's server behind such listeners.
//
// It never interprets a protocol beyond a client's first line.
package guard

import (
	"net"
	"sync"
	"time"

	"lodge/gateway"
	"lodge/gateway/limit"
)

// Limits bound what the clients of one listener can take. Every field must be set.
type Limits struct {
	Conns   int           // open at once
	PerPeer int           // open at once from one gateway.Peer
	PerNet  int           // open at once from the net around a Peer
	Idle    time.Duration // the longest wait for a client to send or to read
	Crowded time.Duration // Idle, outside of transfers, while more than half of Conns are open
	Session time.Duration // the longest life of a connection
	Writes  int           // replies on one connection
}

// Replies are what a client is sent before the connection is closed, without the line end.
type Replies struct {
	Busy string // over a limit; empty: nothing is sent
	HTTP string // its first line is an HTTP request
}

// Listener guards the connections of another listener. Make it with NewListener.
type Listener struct {
	net.Listener
	limits  Limits
	replies Replies
	open    *limit.Limit[gateway.Peer]
	nets    *limit.Limit[gateway.Peer]

	mu       sync.Mutex
	conns    map[*Conn]struct{}
	draining bool
	drained  chan struct{} // closed when draining is set
}

// NewListener returns a Listener in front of l.
func NewListener(l net.Listener, limits Limits, replies Replies) *Listener {
	return &Listener{
		Listener: l, limits: limits, replies: replies,
		open:  limit.New[gateway.Peer](limits.PerPeer, limits.Conns),
		nets:  limit.New[gateway.Peer](limits.PerNet, 0),
		conns: map[*Conn]struct{}{}, drained: make(chan struct{}),
	}
}

// Accept waits for a connection within the limits.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err // servers look for net.ErrClosed and net.Error
		}
		if g := l.admit(c); g != nil {
			return g, nil
		}
		if l.replies.Busy != "" {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // a new socket has room to send; never wait for it
			_, _ = c.Write([]byte(l.replies.Busy + "\r\n"))     // a courtesy
		}
		_ = c.Close()
	}
}

// admit returns c guarded, or nil when it is over a limit.
func (l *Listener) admit(c net.Conn) *Conn {
	leave, ok := l.enter(gateway.PeerOf(c))
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining {
		leave()
		return nil
	}
	g := &Conn{
		Conn: c, listener: l, leave: leave,
		end: time.Now().Add(l.limits.Session), idle: l.limits.Idle, writes: l.limits.Writes,
	}
	l.conns[g] = struct{}{}
	return g
}

// enter takes a place for a Peer and one for the net around it.
func (l *Listener) enter(p gateway.Peer) (leave func(), ok bool) {
	leaveNet, ok := l.nets.Enter(p.Around())
	if !ok {
		return nil, false
	}
	leavePeer, ok := l.open.Enter(p)
	if !ok {
		leaveNet()
		return nil, false
	}
	return func() { leavePeer(); leaveNet() }, true
}

// crowded reports whether more than half of the places are taken. The caller holds no lock of l.
func (l *Listener) crowded() bool { return 2*l.Count() > l.limits.Conns }

func (l *Listener) release(g *Conn) {
	g.leave()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, g)
}

// Drain closes the listener and every connection's reading side. A connection in a transfer
// (Conn.Begin) goes on reading until the transfer ends.
func (l *Listener) Drain() error {
	l.mu.Lock()
	if !l.draining {
		close(l.drained)
	}
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
		_ = g.Close() // nothing to do about an error
	}
}

// Count returns how many connections are open.
func (l *Listener) Count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}
