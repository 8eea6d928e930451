package conns

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"

	"lodge/gateway"
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

// crowd is a Guard and what its limits have cut.
type crowd struct {
	*Guard
	cuts []Reason
}

func newCrowd(t *testing.T, number int) *crowd {
	t.Helper()
	c := &crowd{}
	proxies := netip.MustParsePrefix("2001:db8:1::/127")
	c.Guard = New(number, proxies.Contains, func(why Reason) { c.cuts = append(c.cuts, why) }, slog.New(slog.DiscardHandler))
	t.Cleanup(c.Close)
	return c
}

// open lets n connections of one address in.
func (c *crowd) open(n int, from string) (all []*farConn) {
	for port := range n {
		far := &farConn{from: fmt.Sprintf(from, port+1)}
		c.admit(far, false)
		all = append(all, far)
	}
	return all
}

func left(all []*farConn) (n int) {
	for _, c := range all {
		if !c.closed {
			n++
		}
	}
	return n
}

func TestOnePeerHoldsASixteenth(t *testing.T) {
	const number = 256
	for _, from := range []string{"203.0.113.1:%d", "[2001:db8::%x]:443"} { // a /64 is one peer
		c := newCrowd(t, number)
		all := c.open(number, from)
		if left(all) != number/16 || c.Count() != number/16 {
			t.Errorf("%s holds %d of %d", from, left(all), number)
		}
		if all[0].closed != true || all[number-1].closed {
			t.Errorf("%s: the newcomer was closed, not the longest idle", from)
		}
		if i := slices.IndexFunc(c.cuts, func(why Reason) bool { return why != Share }); i >= 0 {
			t.Errorf("cut for %s", c.cuts[i])
		}
	}
}

// However many a crowd opens, it displaces its own connections, not those of a peer with less.
func TestCrowdDisplacesItself(t *testing.T) {
	const number, hostile = 1024, 64
	c := newCrowd(t, number)
	calm := c.open(4, "198.51.100.1:%d") // idle longer than all others
	var crowd []*farConn
	for n := range hostile {
		crowd = append(crowd, c.open(number/16, fmt.Sprintf("203.0.113.%d", n+1)+":%d")...)
	}
	late := c.open(4, "198.51.100.2:%d")
	if left(calm) != 4 || left(late) != 4 || left(crowd) != number-8 {
		t.Errorf("calm %d, late %d, crowd %d", left(calm), left(late), left(crowd))
	}
	if !slices.Contains(c.cuts, Full) {
		t.Errorf("cut for %v", c.cuts)
	}
}

// Tunnels end at loopback: it may take all that is free, and is the first to lose it.
func TestLoopbackTakesWhatIsFree(t *testing.T) {
	const number = 256
	c := newCrowd(t, number)
	tunnel := c.open(2*number, "127.0.0.1:%d")
	if left(tunnel) != number {
		t.Errorf("a tunnel holds %d of %d", left(tunnel), number)
	}
	visitor := c.open(8, "203.0.113.1:%d")
	c.open(number, "127.0.0.1:%d")
	if left(visitor) != 8 {
		t.Errorf("%d of 8 connections of a visitor are left", left(visitor))
	}
}

// The visitors of all pages may come through a proxy on another host. The other addresses of its
// network are strangers', which have one share of their own.
func TestProxyTakesWhatIsFree(t *testing.T) {
	const number = 256
	c := newCrowd(t, number)
	strangers := c.open(number, "[2001:db8:1::f%x]:1")
	proxy := c.open(number/2, "[2001:db8:1::1]:%d")
	if left(strangers) != number/16 || left(proxy) != number/2 {
		t.Errorf("the proxy holds %d, its network %d of %d", left(proxy), left(strangers), number)
	}
	visitor := c.open(8, "203.0.113.1:%d")
	c.open(number, "[2001:db8:1::1]:%d")
	if left(visitor) != 8 || left(strangers) != number/16 {
		t.Errorf("%d of 8 connections of a visitor are left, and %d of strangers", left(visitor), left(strangers))
	}
}

// Of peers with one connection each, the longest idle goes, and one with a request goes last.
func TestLongestIdleGoesFirst(t *testing.T) {
	const number = 16
	c := newCrowd(t, number)
	var all []*Conn
	for n := range number {
		all = append(all, c.admit(&farConn{from: fmt.Sprintf("203.0.113.%d:1", n+1)}, false))
	}
	all[0].requests.Add(1)
	all[1].last.Store(c.now())
	for n := range number - 2 {
		c.open(1, fmt.Sprintf("198.51.100.%d", n+1)+":%d")
		if next := all[n+2].Conn.(*farConn); !next.closed {
			t.Errorf("connection %d is still open", n+2)
		}
	}
	if all[0].Conn.(*farConn).closed || all[1].Conn.(*farConn).closed {
		t.Error("a connection went that was not idle the longest")
	}
}

func TestHandshakesHaveTheirOwnPlaces(t *testing.T) {
	const number = 1024
	c := newCrowd(t, number)
	var silent []*farConn
	for n := range 64 {
		for port := range 16 {
			far := &farConn{from: fmt.Sprintf("203.0.113.%d:%d", n+1, port+1)}
			c.admit(far, true)
			silent = append(silent, far)
		}
	}
	if left(silent) != number/handshakeParts {
		t.Errorf("%d handshakes at once", left(silent))
	}
	next := &farConn{from: "198.51.100.1:1"}
	guarded := c.admit(next, true)
	for range 2 * number {
		c.admit(&farConn{from: "203.0.113.1:1"}, true)
	}
	if next.closed {
		t.Error("a crowd displaced the handshake of another")
	}
	c.shaken(guarded)
	c.open(number/16-1, "198.51.100.1:%d")
	if next.closed {
		t.Error("the connection has no place after its handshake")
	}
}

func TestGuestsAreNotCounted(t *testing.T) {
	c := newCrowd(t, 16)
	tap := &farConn{from: "10.213.0.2:1"}
	c.admit(gateway.NewConn(tap, gateway.Identity{ID: gateway.NewID()}), true)
	c.open(64, "127.0.0.1:%d")
	if tap.closed {
		t.Error("the outside displaced a VM's connection")
	}
}

func TestClosedConnectionsGiveTheirPlacesBack(t *testing.T) {
	c := newCrowd(t, 256)
	for range 3 {
		var all []*Conn
		for port := range 16 {
			all = append(all, c.admit(&farConn{from: fmt.Sprintf("203.0.113.1:%d", port+1)}, port%2 == 0))
		}
		for _, one := range all {
			_ = one.Close() // once
			_ = one.Close() // and once more, as net/http may
		}
	}
	if len(c.cuts) > 0 || c.Count() != 0 || c.all.taken != 0 || c.shaking.taken != 0 || len(c.all.by) != 0 {
		t.Errorf("cut %v, %d open, %d and %d places taken", c.cuts, c.Count(), c.all.taken, c.shaking.taken)
	}
	c.Wait(t.Context(), 1<<62) // returns at once
}
