package https

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// farConn is a connection with any remote address, which loopback cannot have.
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
	count := newConnCount()
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
	for n := range maxConns { // a /64 counts as one peer
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
	if !open("203.0.113.1:1").closed || open("203.0.113.3:1").closed {
		t.Error("a place that was given back is not for a client with less")
	}
}

// Many clients together leave room for the next, one after the other and in turns.
func TestManyClientsLeaveRoomForOthers(t *testing.T) {
	const greedy = 16
	one := func(count *connCount, client, port int) (open bool) {
		c := &farConn{from: fmt.Sprintf("203.0.113.%d:%d", client+1, port+1)}
		count.change(c, http.StateNew)
		if c.closed {
			count.change(c, http.StateClosed)
		}
		return !c.closed
	}
	turns := newConnCount()
	for port := range maxConnsPerPeer {
		for client := range greedy {
			one(turns, client, port)
		}
	}
	for port := range maxConns / (greedy + 1) / 2 {
		if !one(turns, greedy, port) {
			t.Fatalf("beside %d clients that take turns, the next gets %d connections", greedy, port)
		}
	}
	row := newConnCount()
	for client := range 8 {
		for port := range maxConnsPerPeer {
			one(row, client, port)
		}
	}
	if !one(row, greedy, 0) {
		t.Error("after 8 clients the next one is shut out")
	}
}

func TestOneVMLeavesRoomForOthers(t *testing.T) {
	vms := gatewaytest.NewDirectory(t, new(gatewaytest.Records), publicVM("blog"), publicVM("shop"))
	s, err := New(Config{
		Domain: "lodge.localhost", Port: 443, Dir: t.TempDir(), Directory: vms, Logger: slog.New(slog.DiscardHandler),
		Dial: func(context.Context, gateway.VM, uint16) (net.Conn, error) { return nil, syscall.ECONNREFUSED },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) }) // it serves nothing
	get := func(vm string) int {
		host := vm + ".lodge.localhost"
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/", nil)
		r.TLS = &tls.ConnectionState{ServerName: host}
		w := httptest.NewRecorder()
		s.serveWeb(w, r)
		return w.Code
	}
	blog, _ := vms.ByName("blog")
	var leave func()
	for range maxRequestsPerVM {
		leave, _ = s.requests.Enter(blog.ID)
	}
	if busy, other := get("blog"), get("shop"); busy != http.StatusServiceUnavailable || other != http.StatusBadGateway {
		t.Errorf("blog at its limit: %d; shop: %d", busy, other)
	}
	leave()
	if after := get("blog"); after != http.StatusBadGateway {
		t.Errorf("a place that was given back is lost: %d", after)
	}
}

// publicVM is a running VM whose plain name anyone may open.
func publicVM(name string) gateway.VM {
	return gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running,
		Shares: []gateway.Share{{Port: gateway.DefaultPort, Visibility: gateway.Public}},
	}
}
