package netid

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// taps lists Lodge's taps with what the kernel has for each.
func taps(t *testing.T) map[string][]string {
	t.Helper()
	links, err := netlink.LinkList()
	fatal(t, err)
	all := map[string][]string{}
	for _, l := range links {
		name := l.Attrs().Name
		if !strings.HasPrefix(name, "lg") {
			continue
		}
		all[name] = []string{l.Attrs().HardwareAddr.String()}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		fatal(t, err)
		for _, a := range addrs {
			all[name] = append(all[name], "addr "+a.IPNet.String())
		}
		routes, err := netlink.RouteList(l, netlink.FAMILY_ALL)
		fatal(t, err)
		for _, r := range routes {
			all[name] = append(all[name], "route "+r.Dst.String()+" from "+r.Src.String())
		}
		neighs, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V4)
		fatal(t, err)
		for _, n := range neighs {
			if n.State == netlink.NUD_PERMANENT {
				all[name] = append(all[name], "neighbour "+n.IP.String()+" at "+n.HardwareAddr.String())
			}
		}
	}
	return all
}

var aliceTap = []string{
	"52:55:00:00:00:01", "addr 169.254.169.254/32", "route 10.213.0.2/32 from 169.254.169.254",
	"neighbour 10.213.0.2 at 52:54:00:00:00:01",
}

var bobTap = []string{
	"52:55:00:00:00:02", "addr 169.254.169.254/32", "route 10.213.0.3/32 from 169.254.169.254",
	"neighbour 10.213.0.3 at 52:54:00:00:00:02",
}

func newNet(t *testing.T) *Net {
	t.Helper()
	n := New(Config{Net: guestNet, TCP: []uint16{80}, UDP: []uint16{53}, Logger: quietLogger})
	t.Cleanup(func() {
		if err := n.Apply(context.WithoutCancel(t.Context()), nil); err != nil {
			t.Errorf("take all down: %v", err)
		}
	})
	return n
}

func TestApplyMakesExactlyThese(t *testing.T) {
	n, a, b := newNet(t), vm(1, "alice", "10.213.0.2"), vm(2, "bob", "10.213.0.3")
	steps := []struct {
		name string
		do   func() error
		want map[string][]string
	}{
		{"nothing", func() error { return n.Apply(t.Context(), nil) }, map[string][]string{}},
		{"two", func() error { return n.Apply(t.Context(), []gateway.Identity{a, b}) }, map[string][]string{"lg00000001": aliceTap, "lg00000002": bobTap}},
		{"again", func() error { return n.Apply(t.Context(), []gateway.Identity{a, b}) }, map[string][]string{"lg00000001": aliceTap, "lg00000002": bobTap}},
		{"down", func() error { return n.Down(t.Context(), b) }, map[string][]string{"lg00000001": aliceTap}},
		{"down again", func() error { return n.Down(t.Context(), b) }, map[string][]string{"lg00000001": aliceTap}},
		{"up", func() error { return n.Up(t.Context(), b) }, map[string][]string{"lg00000001": aliceTap, "lg00000002": bobTap}},
		{"up again", func() error { return n.Up(t.Context(), b) }, map[string][]string{"lg00000001": aliceTap, "lg00000002": bobTap}},
		{"stray", func() error { return New(n.config).Apply(t.Context(), []gateway.Identity{a}) }, map[string][]string{"lg00000001": aliceTap}},
	}
	for _, s := range steps {
		fatal(t, s.do())
		if diff := cmp.Diff(s.want, taps(t)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
		rules := nft(t, "list", "table", "inet", "lodge")
		for _, tap := range []string{"lg00000001", "lg00000002"} {
			if _, up := s.want[tap]; up != strings.Contains(rules, tap) {
				t.Errorf("%s: rules let %s through: %v", s.name, tap, !up)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	n, a := newNet(t), vm(1, "alice", "10.213.0.2")
	if n.Up(t.Context(), a) == nil || n.Down(t.Context(), a) == nil || repair(t, n) == nil {
		t.Error("Up, Down or Repair worked before Apply")
	}
	fatal(t, n.Apply(t.Context(), []gateway.Identity{a}))
	nobody := vm(3, "nobody", "10.213.0.4")
	nobody.ID = gateway.ID{}
	for name, other := range map[string]gateway.Identity{
		"unknown":         nobody,
		"same number":     vm(1, "x", "10.213.0.9"),
		"same address":    vm(9, "x", "10.213.0.2"),
		"number 0":        vm(0, "x", "10.213.0.9"),
		"foreign address": vm(9, "x", "10.214.0.9"),
		"IPv6 address":    vm(9, "x", "2001:db8::9"),
		"IPv4 mapped":     vm(9, "x", "::ffff:10.213.0.9"),
		"no address":      {ID: gateway.NewID(), Number: 9},
	} {
		if n.Up(t.Context(), other) == nil {
			t.Errorf("Up accepted a VM with %s", name)
		}
		if n.Apply(t.Context(), []gateway.Identity{a, other}) == nil {
			t.Errorf("Apply accepted a VM with %s", name)
		}
		if rules := nft(t, "list", "table", "inet", "lodge"); strings.Count(rules, `"lg0`) != 1 {
			t.Errorf("after a VM with %s the rules are not for alice alone:\n%s", name, rules)
		}
	}
	if diff := cmp.Diff(map[string][]string{"lg00000001": aliceTap}, taps(t)); diff != "" {
		t.Errorf("after refusals (-want +got):\n%s", diff)
	}
}

// Each failure has a hint, and leaves the VM shut out and the others as they were.
func TestFailures(t *testing.T) {
	a, b := vm(1, "alice", "10.213.0.2"), vm(2, "bob", "10.213.0.3")
	onlyAlice := func(t *testing.T) {
		t.Helper()
		if rules := nft(t, "list", "ruleset"); !strings.Contains(rules, "lg00000001") || strings.Contains(rules, "lg00000002") {
			t.Errorf("rules let others through than alice:\n%s", rules)
		}
	}
	t.Run("nft is not installed", func(t *testing.T) {
		n := newNet(t)
		fatal(t, n.Apply(t.Context(), []gateway.Identity{a}))
		nft(t, "flush", "ruleset")
		path := os.Getenv("PATH")
		t.Setenv("PATH", "")
		err := n.Up(t.Context(), b)
		t.Setenv("PATH", path)
		if gateway.KindOf(err) != gateway.KindUnavailable {
			t.Errorf("Up: %v", err)
		}
		fatal(t, repair(t, n))
		onlyAlice(t)
	})
	t.Run("nft is not installed at the start", func(t *testing.T) {
		n := newNet(t)
		path := os.Getenv("PATH")
		t.Setenv("PATH", "")
		err := n.Apply(t.Context(), []gateway.Identity{a})
		t.Setenv("PATH", path)
		if gateway.KindOf(err) != gateway.KindUnavailable || len(taps(t)) > 0 {
			t.Errorf("Apply: %v; taps %v", err, taps(t))
		}
		fatal(t, n.Up(t.Context(), a)) // now it is
		onlyAlice(t)
	})
	t.Run("another interface has the name", func(t *testing.T) {
		n := newNet(t)
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lg00000002"}, PeerName: "peer"}))
		if err := n.Apply(t.Context(), []gateway.Identity{b, a}); err == nil || !strings.Contains(err.Error(), "lg00000002") {
			t.Errorf("Apply: %v", err)
		}
		onlyAlice(t)
		if n.Up(t.Context(), b) == nil {
			t.Error("Up accepted it")
		}
		if repair(t, n) == nil {
			t.Error("Repair accepted it")
		}
		onlyAlice(t)
		must(t, netlink.LinkDel(link(t, "peer")))
		fatal(t, repair(t, n))
		if diff := cmp.Diff(map[string][]string{"lg00000001": aliceTap, "lg00000002": bobTap}, taps(t)); diff != "" {
			t.Errorf("when the name was free again (-want +got):\n%s", diff)
		}
	})
	t.Run("the guests' network is in use", func(t *testing.T) {
		n := newNet(t)
		fatal(t, n.Apply(t.Context(), []gateway.Identity{a}))
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "peer"}))
		defer func() { must(t, netlink.LinkDel(link(t, "peer"))) }()
		setUp(t, "lan", netip.MustParsePrefix("10.213.64.1/24"))
		if err := n.Up(t.Context(), b); gateway.KindOf(err) != gateway.KindConflict || !strings.Contains(err.Error(), "10.213.64.0/24") {
			t.Errorf("Up: %v", err)
		}
		onlyAlice(t)
		fatal(t, n.Up(t.Context(), a)) // its tap is up
		nft(t, "flush ruleset")
		if _, err := n.Repair(t.Context()); gateway.KindOf(err) == gateway.KindConflict {
			t.Errorf("Repair: %v", err)
		}
		onlyAlice(t)
		n = New(n.config) // as after a restart of the daemon
		if err := n.Apply(t.Context(), []gateway.Identity{b, a}); gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("Apply: %v", err)
		}
		onlyAlice(t)
		if err := repair(t, n); gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("Repair after Apply: %v", err)
		}
		onlyAlice(t)
		if err := n.Down(t.Context(), a); err != nil || len(taps(t)) > 0 {
			t.Errorf("Down: %v; taps %v", err, taps(t))
		}
		nft(t, "flush ruleset")
		n = New(n.config)
		if err := n.Apply(t.Context(), []gateway.Identity{a}); gateway.KindOf(err) != gateway.KindConflict || len(taps(t)) > 0 {
			t.Errorf("Apply without taps: %v; taps %v", err, taps(t))
		}
		if rules := nft(t, "list", "ruleset"); rules != "" { // they would drop the host's packets
			t.Errorf("Apply without taps has set\n%s", rules)
		}
	})
}

// Down ends everything: the next VM with the address is identified as itself, and the former one
// not at all.
func TestAddressUsedAgain(t *testing.T) {
	l := newLab(t)
	c, err := l.alice.dial("tcp", "203.0.113.7:80", net.Dialer{Timeout: patience})
	fatal(t, err)
	defer c.Close()
	if flows(t, l.a.Addr) == 0 {
		t.Fatal("connection tracking has nothing of alice")
	}
	l.listeners.Close(l.a.ID)
	fatal(t, l.net.Down(t.Context(), l.a))
	if got := flows(t, l.a.Addr); got != 0 {
		t.Errorf("%d flows of alice are left", got)
	}
	if _, err := l.alice.wire.Write(from(l.a, "attack").frame()); err == nil {
		t.Error("alice still has a wire")
	}
	if got := whoAmI(t, l.bob); got != "bob" {
		t.Errorf("bob is %q", got)
	}

	heir := vm(3, "heir", "10.213.0.2")
	fatal(t, l.net.Up(t.Context(), heir))
	fatal(t, l.listeners.Open(t.Context(), heir))
	if got := whoAmI(t, newGuest(t, heir)); got != "heir" {
		t.Errorf("the heir is %q", got)
	}
	l.bob.send(t, from(l.a, "attack").frame()) // with the old hardware address
	old := from(heir, "attack")
	old.srcMAC = l.a.MAC()
	l.bob.send(t, old.frame())
	if got := whoAmI(t, l.bob); got != "bob" {
		t.Errorf("bob is %q", got)
	}
	for len(l.received) > 0 {
		if h := <-l.received; h.payload == "attack" {
			t.Errorf("received at %s", h.where)
		}
	}
}

func flows(t *testing.T, addr netip.Addr) int {
	t.Helper()
	all, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
	fatal(t, err)
	return len(slices.DeleteFunc(all, func(f *netlink.ConntrackFlow) bool { return !flowsOf{addr}.MatchConntrackFlow(f) }))
}

func TestListenersCloseEndsLiveConnections(t *testing.T) {
	l := newLab(t)
	hold := func(n *node) net.Conn {
		c, err := n.dial("tcp", "169.254.169.254:80", net.Dialer{Timeout: patience})
		fatal(t, err)
		name := make([]byte, 3)
		_, err = io.ReadFull(c, name)
		fatal(t, err)
		return c
	}
	alice, bob := hold(l.alice), hold(l.bob)
	defer alice.Close()
	defer bob.Close()
	l.listeners.Close(l.a.ID)
	if _, err := io.Copy(io.Discard, alice); err != nil {
		t.Errorf("alice's connection: %v", err)
	}
	if _, err := l.alice.ask("169.254.169.254:80", patience); failure(err) != "refused" {
		t.Errorf("alice's listener is still open: %v", err)
	}
	if _, err := bob.Write([]byte("still here")); err != nil {
		t.Errorf("bob's connection: %v", err)
	}
	if got := whoAmI(t, l.bob); got != "bob" {
		t.Errorf("bob is %q", got)
	}
}
