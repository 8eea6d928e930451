package https

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestClientAddr(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/64")}
	for name, tt := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"not a proxy":              {"198.51.100.1", []string{"203.0.113.9"}, "198.51.100.1"},
		"one hop":                  {"127.0.0.1", []string{"203.0.113.9"}, "203.0.113.9"},
		"what the client claims":   {"127.0.0.1", []string{"10.0.0.1, 203.0.113.9"}, "203.0.113.9"},
		"two proxies":              {"127.0.0.1", []string{"10.0.0.1, 203.0.113.9, 192.0.2.7"}, "203.0.113.9"},
		"several lines":            {"127.0.0.1", []string{"10.0.0.1, 203.0.113.9", "192.0.2.7"}, "203.0.113.9"},
		"proxies only":             {"127.0.0.1", []string{"192.0.2.8", "192.0.2.7"}, "192.0.2.8"},
		"no header":                {"127.0.0.1", nil, "127.0.0.1"},
		"not an address":           {"127.0.0.1", []string{"203.0.113.9, evil"}, "127.0.0.1"},
		"not an address, later":    {"127.0.0.1", []string{"evil, 192.0.2.7"}, "192.0.2.7"},
		"empty":                    {"127.0.0.1", []string{"203.0.113.9,"}, "127.0.0.1"},
		"a port":                   {"127.0.0.1", []string{"203.0.113.9:1234"}, "203.0.113.9"},
		"IPv6":                     {"127.0.0.1", []string{"2001:db8::9, 2001:db8:1::1"}, "2001:db8::9"},
		"IPv6 with a port":         {"127.0.0.1", []string{"[2001:db8::9]:1234"}, "2001:db8::9"},
		"IPv4 in IPv6":             {"::ffff:127.0.0.1", []string{"::ffff:203.0.113.9"}, "203.0.113.9"},
		"an address with a zone":   {"127.0.0.1", []string{"fe80::1%eth0"}, "fe80::1"},
		"trusted one, not its own": {"192.0.3.1", []string{"127.0.0.1"}, "192.0.3.1"},
	} {
		h := http.Header{"X-Forwarded-For": tt.forwarded}
		if got := clientAddr(netip.MustParseAddr(tt.peer).Unmap(), h, trusted); got.String() != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// FuzzForwardedFor: the header of an untrusted peer has no effect, and that of a trusted one gives an
// address to the right of which all are trusted.
func FuzzForwardedFor(f *testing.F) {
	f.Add("203.0.113.9, 192.0.2.7")
	f.Add("[2001:db8::9]:1, ::ffff:192.0.2.1,,")
	f.Add("evil, 10.0.0.1:x")
	trusted := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	proxy, stranger := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	f.Fuzz(func(t *testing.T, line string) {
		h := http.Header{"X-Forwarded-For": {line}}
		if got := clientAddr(stranger, h, trusted); got != stranger {
			t.Errorf("%q of an untrusted peer: %s", line, got)
		}
		got := clientAddr(proxy, h, trusted)
		if !got.IsValid() || got.Zone() != "" || got.Is4In6() {
			t.Errorf("%q: %v", line, got)
		}
		for _, hop := range slices.Backward(strings.Split(line, ",")) {
			addr, err := netip.ParseAddr(strings.TrimSpace(hop))
			if err != nil || got == addr.Unmap().WithZone("") || got == proxy {
				return
			}
			if !trusted[0].Contains(addr.Unmap().WithZone("")) {
				t.Fatalf("%q: %s, past the untrusted %s", line, got, addr)
			}
		}
	})
}
