package netid

import (
	"fmt"
	"net"
	"testing"
)

// A guest reaches the world by TCP, UDP and ICMP without IP options only.
func TestOddPacketsDoNotLeave(t *testing.T) {
	l := newLab(t)
	ordinary := from(l.a, "attack")
	ordinary.dst, ordinary.port = internet.Addr(), closedPort
	for _, tt := range []struct {
		name    string
		change  func(*datagram)
		arrives bool
	}{
		{"ordinary", func(*datagram) {}, true},
		{"record route", func(d *datagram) { d.options = []byte{7, 7, 4, 0, 0, 0, 0, 0} }, false},
		{"timestamp", func(d *datagram) { d.options = []byte{68, 8, 5, 0, 0, 0, 0, 0} }, false},
		{"router alert", func(d *datagram) { d.options = []byte{148, 4, 0, 0} }, false},
		{"no operation", func(d *datagram) { d.options = []byte{1, 1, 1, 0} }, false},
		{"unknown option", func(d *datagram) { d.options = []byte{222, 4, 0, 0} }, false},
		{"IGMP", func(d *datagram) { d.proto = 2 }, false},
		{"IPv4 in IPv4", func(d *datagram) { d.proto = 4 }, false},
		{"IPv6 in IPv4", func(d *datagram) { d.proto = 41 }, false},
		{"GRE", func(d *datagram) { d.proto = 47 }, false},
		{"ESP", func(d *datagram) { d.proto = 50 }, false},
		{"SCTP", func(d *datagram) { d.proto = 132 }, false},
	} {
		d := ordinary
		tt.change(&d)
		before := l.outside.oddFrames()
		l.alice.send(t, d.frame())
		l.settle(t)
		if got := l.outside.oddFrames() > before; got != tt.arrives {
			t.Errorf("%s: arrives outside: %v", tt.name, got)
		}
	}
}

func (n *node) oddFrames() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.odd)
}

// One guest with a helper outside fills its own share of the connection table, not the table.
func TestOneGuestCannotFillConntrack(t *testing.T) {
	l := newLab(t)
	opened := 0
	for refused := 0; refused < 5 && opened < maxFlows+200; { // a busy machine can be late once or twice
		c, err := l.alice.dial("tcp", "203.0.113.7:80", net.Dialer{Timeout: impatience})
		if err != nil {
			refused++
			continue
		}
		refused = 0
		defer c.Close() // until then the host keeps an entry for it
		opened++
	}
	if got := flows(t, l.a.Addr); opened > maxFlows || got < maxFlows-10 {
		t.Errorf("alice has opened %d connections with %d entries, want %d", opened, got, maxFlows)
	}
	fatal(t, repair(t, l.net))
	fatal(t, l.net.Up(t.Context(), vm(3, "carol", "10.213.0.4"))) // elements change, counts stay
	if _, err := l.alice.ask("203.0.113.7:80", impatience); failure(err) != "timeout" {
		t.Errorf("alice opens one more: %v", err)
	}
	if got := flows(t, l.a.Addr); got > maxFlows+10 {
		t.Errorf("alice has %d entries in the connection table", got)
	}
	if got, err := l.bob.ask("203.0.113.7:80", patience); err != nil || got != uplink.Addr().String() {
		t.Errorf("bob reaches the world as %q, %v", got, err)
	}
	if got := [2]string{whoAmI(t, l.alice), whoAmI(t, l.bob)}; got != [2]string{"alice", "bob"} {
		t.Errorf("guests get the names %v", got)
	}
}

// Datagrams to the gateway leave no entry at all, and its other ports have a share of their own.
func TestGatewayPortsCannotFillConntrack(t *testing.T) {
	l := newLab(t)
	before := flows(t, l.a.Addr)
	received := 0
	for port := range uint16(200) {
		d := from(l.a, fmt.Sprint("query ", port))
		d.from = 10000 + port
		l.alice.send(t, d.frame())
		if port%50 == 0 { // a socket does not hold all of them
			received += len(l.settle(t))
		}
	}
	received += len(l.settle(t))
	if got := flows(t, l.a.Addr) - before; received != 200 || got > 0 {
		t.Errorf("%d of 200 datagrams received, %d more entries in the connection table", received, got)
	}
}
