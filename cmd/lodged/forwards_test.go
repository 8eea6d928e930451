package main

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"lodge/gateway"
)

// The error for a port that another program has names the program, for both protocols.
func TestForwardErrorsNameTheHolder(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for network, addr := range map[string]string{"tcp": l.Addr().String(), "udp": c.LocalAddr().String()} {
		at := netip.MustParseAddrPort(addr)
		_, taken := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if network == "udp" {
			_, taken = new(net.ListenConfig).ListenPacket(t.Context(), "udp", addr)
		}
		err := explainForward(t.Context(), network, at, taken)
		if gateway.KindOf(err) != gateway.KindConflict || !strings.Contains(err.Error(), "lodged.test (process ") {
			t.Errorf("%s: %v, %v", network, gateway.KindOf(err), err)
		}
	}
	_, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "192.0.2.77:4444")
	if err = explainForward(t.Context(), "tcp", netip.MustParseAddrPort("192.0.2.77:4444"), err); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("an address of no interface: %v", err)
	}
}
