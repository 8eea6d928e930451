package main

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

// HTTP/3 has a socket for each address if the configuration asks for it; a taken port is an error with a
// hint.
func TestHTTP3Sockets(t *testing.T) {
	taken, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := defaultConfig()
	cfg.HTTPSPort = taken.LocalAddr().(*net.UDPAddr).Port
	if all, err := openHTTP3(t.Context(), cfg, nil); err != nil || len(all) != 0 {
		t.Errorf("off: %v, %v", all, err)
	}
	cfg.HTTP3 = true
	if _, err := openHTTP3(t.Context(), cfg, nil); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("a taken port: %v", err)
	}
	cfg.Listen = []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	all, err := openHTTP3(t.Context(), cfg, nil)
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, c := range all {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
