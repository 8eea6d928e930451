package gateway_test

import (
	"net"
	"net/netip"
	"testing"

	"lodge/gateway"
)

type from struct {
	net.Conn
	addr net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.addr }

func TestPeerOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:1":          "192.0.2.7/32",
		"[::ffff:192.0.2.7]:9": "192.0.2.7/32",
		"[2001:db8::1:2]:1":    "2001:db8::/64",
		"[fe80::1%eth0]:1":     "fe80::/64",
	} {
		c := from{addr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr))}
		if got := gateway.PeerOf(c); got.Net.String() != want || got.VM != (gateway.ID{}) {
			t.Errorf("%s: got %+v, want %s", addr, got, want)
		}
	}
	if got := gateway.PeerAt(netip.Addr{}); got != (gateway.Peer{}) {
		t.Errorf("no address: %+v", got)
	}
	if got := gateway.PeerOf(from{addr: &net.UnixAddr{Name: "x"}}); got != (gateway.Peer{}) {
		t.Errorf("a unix socket: %+v", got)
	}
	if !gateway.PeerOf(from{addr: &net.TCPAddr{IP: net.IPv6loopback, Port: 1}}).Loopback() {
		t.Error("::1 is not loopback")
	}
}

func TestAround(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.0/24", "::ffff:192.0.2.7": "192.0.2.0/24", "2001:db8:1:2::3": "2001:db8:1::/48",
	} {
		if got := gateway.PeerAt(netip.MustParseAddr(addr)).Around(); got.Net.String() != want {
			t.Errorf("%s: got %+v, want %s", addr, got, want)
		}
	}
	if vm := (gateway.Peer{VM: gateway.NewID()}); vm.Around() != vm || (gateway.Peer{}).Around() != (gateway.Peer{}) {
		t.Error("the net around a VM, or around no address, is another Peer")
	}
}
