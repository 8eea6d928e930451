package gateway_test

import (
	"fmt"
	"net/netip"
	"testing"

	"lodge/gateway"
)

func TestParseForward(t *testing.T) {
	tcp := func(host, vm uint16) gateway.Forward {
		return gateway.Forward{HostPort: gateway.HostPort{Protocol: gateway.TCP, Port: host}, VMPort: vm}
	}
	at := func(f gateway.Forward, addr string) gateway.Forward {
		f.Addr = netip.MustParseAddr(addr)
		return f
	}
	udp := tcp(5353, 53)
	udp.Protocol = gateway.UDP
	for text, want := range map[string]gateway.Forward{
		"2222:22/tcp":                tcp(2222, 22),
		"5353:53/udp":                udp,
		"65535:1/tcp":                tcp(65535, 1),
		"127.0.0.1:2222:22/tcp":      at(tcp(2222, 22), "127.0.0.1"),
		"[::1]:2222:22/tcp":          at(tcp(2222, 22), "::1"),
		"[2001:db8::1]:2222:22/tcp":  at(tcp(2222, 22), "2001:db8::1"),
		"":                           {},
		"2222":                       {},
		"2222/tcp":                   {},
		"2222:22":                    {},
		"2222:22/sctp":               {},
		"2222:22/TCP":                {},
		"2222:22/tcp/udp":            {},
		"0:22/tcp":                   {},
		"2222:0/tcp":                 {},
		"65536:22/tcp":               {},
		"-1:22/tcp":                  {},
		"+22:22/tcp":                 {},
		"022:22/tcp":                 {},
		":2222:22/tcp":               {},
		"a:2222:22/tcp":              {},
		"::1:2222:22/tcp":            {},
		"[::1:2222:22/tcp":           {},
		"::1]:2222:22/tcp":           {},
		"[127.0.0.1]:2222:22/tcp":    {},
		"[fe80::1%eth0]:2222:22/tcp": {},
		"[::ffff:1.2.3.4]:22:22/tcp": {},
		"0.0.0.0:2222:22/tcp":        {},
		"[::]:2222:22/tcp":           {},
		"169.254.169.254:80:80/tcp":  {},
		"224.0.0.1:2222:22/udp":      {},
		"255.255.255.255:22:22/udp":  {},
	} {
		got, err := gateway.ParseForward(text)
		if want == (gateway.Forward{}) {
			if gateway.KindOf(err) != gateway.KindInvalid {
				t.Errorf("%q: got %+v, %v; want KindInvalid", text, got, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", text, got, err, want)
		}
	}
}

// What is accepted is written in one way only, so that it can be compared and removed by its text.
func FuzzParseForward(f *testing.F) {
	for _, s := range []string{"2222:22/tcp", "[::1]:5353:53/udp", "127.0.0.1:1:1/tcp", "[::1%a]:1:1/tcp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := gateway.ParseForward(s)
		if err != nil {
			return
		}
		text := fmt.Sprintf("%d:%d/%s", got.Port, got.VMPort, got.Protocol)
		switch {
		case got.Addr.Is4():
			text = got.Addr.String() + ":" + text
		case got.Addr.Is6():
			text = "[" + got.Addr.String() + "]:" + text
		}
		again, err := gateway.ParseForward(text)
		if err != nil || again != got {
			t.Errorf("%q is %+v, and %q is %+v, %v", s, got, text, again, err)
		}
		port, err := gateway.ParseHostPort(got.String())
		if err != nil || port != got.HostPort {
			t.Errorf("%q: %v, %v", got.HostPort, port, err)
		}
	})
}

// The API takes an address as JSON, which the notation of the command line does not pass.
func TestForwardNeedsAnAddressOfTheHost(t *testing.T) {
	for _, addr := range []string{"0.0.0.0", "::", "::ffff:0.0.0.0", "::ffff:169.254.169.254", "169.254.169.254", "fe80::1%eth0"} {
		f, err := gateway.ParseForward("2222:22/tcp")
		if err != nil {
			t.Fatal(err)
		}
		f.Addr = netip.MustParseAddr(addr)
		if err := f.Check(); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%s: %v, want KindInvalid", addr, err)
		}
	}
}
