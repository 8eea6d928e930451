package https

import (
	"fmt"
	"net"
	"net/http"
	"testing"

	"lodge/gateway"
)

// farConn is a connection from anywhere, which loopback cannot show.
type farConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *farConn) RemoteAddr() net.Addr {
	addr, _ := net.ResolveTCPAddr("tcp", c.from) // a constant of the test
	return addr
}

func (c *farConn) Close() error {
	c.closed = true
	return nil
}

func TestOneClientLeavesRoomForOthers(t *testing.T) {
	var count connCount
	open := func(from string) *farConn {
		c := &farConn{from: from}
		count.change(c, http.StateNew)
		if c.closed {
			count.change(c, http.StateClosed)
		}
		return c
	}
	var greedy []*farConn
	for port := range maxConns {
		if c := open(fmt.Sprintf("203.0.113.1:%d", port+1)); !c.closed {
			greedy = append(greedy, c)
		}
	}
	if len(greedy) != maxConnsPerPeer {
		t.Fatalf("one client holds %d connections", len(greedy))
	}
	for n := range maxConns { // a whole /64 counts as one
		if c := open(fmt.Sprintf("[2001:db8::%x]:443", n+1)); c.closed != (n >= maxConnsPerPeer) {
			t.Fatalf("connection %d of an IPv6 network: closed is %v", n, c.closed)
		}
	}
	if open("203.0.113.2:1").closed || open("127.0.0.1:1").closed {
		t.Error("others are shut out")
	}
	for n := range maxConns {
		open(fmt.Sprintf("127.0.0.1:%d", n+1))
	}
	if !open("203.0.113.3:1").closed {
		t.Error("there is no limit to all together")
	}
	tap := &farConn{from: "10.213.0.2:1"}
	inside := gateway.NewConn(tap, gateway.Identity{ID: gateway.NewID()})
	if count.change(inside, http.StateNew); tap.closed {
		t.Error("the outside shuts a VM out")
	}
	count.change(greedy[0], http.StateClosed)
	if open("203.0.113.1:1").closed {
		t.Error("a place that was given back is lost")
	}
}

func TestOneVMLeavesRoomForOthers(t *testing.T) {
	var count requestCount
	a, b := gateway.NewID(), gateway.NewID()
	for n := range maxRequestsPerVM {
		if !count.enter(a) {
			t.Fatalf("request %d was refused", n)
		}
	}
	if count.enter(a) || !count.enter(b) {
		t.Error("the limit is not each VM's own")
	}
	count.leave(a)
	if !count.enter(a) {
		t.Error("a place that was given back is lost")
	}
}
