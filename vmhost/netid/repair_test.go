package netid

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// Repair restores what others have broken, and does not touch other interfaces, tables and
// settings.
func TestRepair(t *testing.T) {
	n, a := newNet(t), vm(1, "alice", "10.213.0.2")
	nft(t, "add table inet somebody")
	t.Cleanup(func() { must(t, netlink.LinkDel(link(t, "tap9"))) })
	must(t, netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tap9"}, Mode: netlink.TUNTAP_MODE_TAP}))
	fatal(t, n.Apply(t.Context(), []gateway.Identity{a}))
	fatal(t, repair(t, n))
	index := link(t, "lg00000001").Attrs().Index
	for name, harm := range map[string]func(){
		"link down":    func() { must(t, netlink.LinkSetDown(link(t, "lg00000001"))) },
		"address gone": func() { must(t, netlink.AddrDel(link(t, "lg00000001"), &netlink.Addr{IPNet: host(gateway.LinkLocal)})) },
		"route gone": func() {
			must(t, netlink.RouteDel(&netlink.Route{LinkIndex: index, Dst: host(a.Addr), Scope: netlink.SCOPE_LINK}))
		},
		"loose rp_filter":   func() { must(t, set("ipv4/conf/lg00000001/rp_filter", "2")) },
		"hardware address":  func() { must(t, netlink.LinkSetHardwareAddr(link(t, "lg00000001"), outsideMAC)) },
		"rules flushed":     func() { nft(t, "delete table inet lodge") },
		"forwarding is off": func() { must(t, set("ipv4/ip_forward", "0")) },
		"neighbour changed": func() {
			must(t, netlink.NeighSet(&netlink.Neigh{
				LinkIndex: index, IP: a.Addr.AsSlice(), HardwareAddr: outsideMAC, State: netlink.NUD_REACHABLE, Family: netlink.FAMILY_V4,
			}))
		},
		"a setting without notification": func() {
			must(t, set("ipv4/conf/lg00000001/arp_ignore", "0"))
			n.checked = n.checked.Add(-checkEvery)
		},
	} {
		t.Run(name, func(t *testing.T) {
			harm()
			fatal(t, repair(t, n))
			if diff := cmp.Diff(map[string][]string{"lg00000001": aliceTap}, taps(t)); diff != "" {
				t.Errorf("after Repair (-want +got):\n%s", diff)
			}
			if !strings.Contains(nft(t, "list", "ruleset"), `"lg00000001" . 52:54:00:00:00:01 . 10.213.0.2`) {
				t.Error("the rules do not have the guest")
			}
			for _, s := range settings {
				path := "/proc/sys/net/" + strings.Replace(s.path, "%s", "lg00000001", 1)
				if got, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(got)) != s.value {
					t.Errorf("%s is %q, %v; want %s", path, got, err, s.value)
				}
			}
		})
	}
	if got := link(t, "lg00000001").Attrs().Index; got != index {
		t.Errorf("the tap was made anew: a running VM has lost its network")
	}
	link(t, "tap9") // still there
	nft(t, "list", "table", "inet", "somebody")
}

func repair(t *testing.T, n *Net) error {
	t.Helper()
	_, err := n.Repair(t.Context())
	return err
}

// The ruleset is replaced only after another program has changed it, so that what it counts
// survives.
func TestRulesetIsReplacedOnlyWhenNeeded(t *testing.T) {
	n, a, b := newNet(t), vm(1, "alice", "10.213.0.2"), vm(2, "bob", "10.213.0.3")
	fatal(t, n.Apply(t.Context(), []gateway.Identity{a}))
	nft(t, "add table inet somebody")
	for _, step := range []struct {
		name     string
		do       func() error
		replaced bool
	}{
		{"nothing", func() error { return nil }, false},
		{"up", func() error { return n.Up(t.Context(), b) }, false},
		{"up again", func() error { return n.Up(t.Context(), b) }, false},
		{"the same VMs", func() error { return n.Apply(t.Context(), []gateway.Identity{b, a}) }, false},
		{"down", func() error { return n.Down(t.Context(), b) }, false},
		{"another's table", func() error { nft(t, "add chain inet somebody c"); return nil }, false},
		{"up after another's table", func() error { return n.Up(t.Context(), b) }, false},
		{"another's interface", func() error {
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "peer"})
		}, false},
		{"another network", func() error { setUp(t, "lan", netip.MustParsePrefix("198.51.100.9/24")); return nil }, true},
		{"another network gone", func() error { return netlink.LinkDel(link(t, "lan")) }, true},
		{"an element too many", func() error {
			nft(t, "add element inet lodge guests { lg00000009 . 52:54:00:00:00:09 . 10.213.0.9 }")
			return nil
		}, true},
		{"an element too few", func() error {
			nft(t, "delete element arp lodge guests { lg00000001 . 52:54:00:00:00:01 . 10.213.0.2 }")
			return nil
		}, true},
		{"a rule too many", func() error { nft(t, "insert rule inet lodge from-tap accept"); return nil }, true},
		{"no rules", func() error { nft(t, "flush chain inet lodge to-host"); return nil }, true},
		{"a network that is not elsewhere", func() error { nft(t, "delete element inet lodge elsewhere { 10.0.0.0/8 }"); return nil }, true},
		{"no ruleset", func() error { nft(t, "flush ruleset"); return nil }, true},
	} {
		before := tableHandle(t)
		fatal(t, step.do())
		fatal(t, repair(t, n))
		after := tableHandle(t)
		if (before != after) != step.replaced {
			t.Errorf("%s: handle %q, then %q; want replaced: %v", step.name, before, after, step.replaced)
		}
		fatal(t, repair(t, n))
		if got := tableHandle(t); got != after {
			t.Errorf("%s: replaced again", step.name)
		}
		if rules := nft(t, "list", "ruleset"); strings.Contains(rules, "lg00000009") || strings.Count(rules, `"lg00000001" .`) != 2 {
			t.Errorf("%s: after Repair the rules are\n%s", step.name, rules)
		}
	}
}

// A flush by another program between the comparison of the rules and their update is no error.
func TestFlushDuringAnUpdate(t *testing.T) {
	n, a, b := newNet(t), vm(1, "alice", "10.213.0.2"), vm(2, "bob", "10.213.0.3")
	steps := []struct {
		name string
		do   func() error
		bob  bool
	}{
		{"up", func() error { return n.Up(t.Context(), b) }, true},
		{"down", func() error { return n.Down(t.Context(), b) }, false},
	}
	fatal(t, n.Apply(t.Context(), []gateway.Identity{a}))
	for _, step := range steps {
		nft(t, "flush ruleset")
		var err error
		n.loaded.generation, err = generation() // as if compared before the flush
		fatal(t, err)
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		rules := nft(t, "list", "ruleset")
		if !strings.Contains(rules, `"lg00000001" .`) || strings.Contains(rules, `"lg00000002" .`) != step.bob {
			t.Errorf("%s: the rules are\n%s", step.name, rules)
		}
	}
}

// tableHandle identifies a table: one made anew has another.
func tableHandle(t *testing.T) string {
	t.Helper()
	return regexp.MustCompile(`table inet lodge .*`).FindString(nft(t, "-a", "list", "table", "inet", "lodge"))
}

// A tap that was deleted is made again, and its VM reported: after Open its services answer as
// before.
func TestTapMadeAnewAnswersAgain(t *testing.T) {
	for name, harm := range map[string]func(l *lab){
		"deleted": func(*lab) {},
		"deleted and made by another program": func(l *lab) {
			must(t, netlink.LinkAdd(&netlink.Tuntap{
				LinkAttrs: netlink.LinkAttrs{Name: l.a.Tap()}, Mode: netlink.TUNTAP_MODE_TAP,
				Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR,
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			must(t, netlink.LinkDel(link(t, l.a.Tap())))
			harm(l)
			replaced, err := l.net.Repair(t.Context())
			if diff := cmp.Diff([]gateway.Identity{l.a}, replaced, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
				t.Fatalf("Repair: %v (-want +got):\n%s", err, diff)
			}
			for _, vm := range replaced {
				fatal(t, l.listeners.Open(t.Context(), vm))
			}
			l.alice = newGuest(t, l.a)
			l.listen(t, "alice", l.alice, closedHost)
			if got := [2]string{whoAmI(t, l.alice), whoAmI(t, l.bob)}; got != [2]string{"alice", "bob"} {
				t.Errorf("guests get the names %v", got)
			}
			l.settle(t) // UDP too
			if replaced, err := l.net.Repair(t.Context()); len(replaced) > 0 || err != nil {
				t.Errorf("Repair again: %v, %v", replaced, err)
			}
		})
	}
}

// A listing that a change has interrupted is repeated, at most four times; other errors are final.
func TestInterruptedListingIsRepeated(t *testing.T) {
	other := errors.New("other")
	for _, c := range []struct {
		interrupted, calls int
		then, want         error
	}{
		{0, 1, nil, nil},
		{4, 5, nil, nil},
		{9, 5, nil, netlink.ErrDumpInterrupted},
		{2, 3, other, other},
	} {
		calls := 0
		err := repeated(func() error {
			if calls++; calls <= c.interrupted {
				return fmt.Errorf("list interfaces: %w", netlink.ErrDumpInterrupted)
			}
			return c.then
		})
		if calls != c.calls || !errors.Is(err, c.want) {
			t.Errorf("%+v: %d calls, %v", c, calls, err)
		}
	}
}

// newTap describes a tap of another program.
func newTap(name string) *netlink.Tuntap {
	return &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
}

// Interfaces that come and go, as those of containers do, are no error of Apply.
func TestApplyWhileInterfacesChange(t *testing.T) {
	n, a := newNet(t), vm(1, "alice", "10.213.0.2")
	for i := range 100 { // more than one message of a listing holds
		l := newTap(fmt.Sprintf("many%d", i))
		must(t, netlink.LinkAdd(l))
		defer func() { must(t, netlink.LinkDel(l)) }()
	}
	done := make(chan error, 1)
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(20 * time.Millisecond):
			}
			l := newTap("fleeting")
			if err := errors.Join(netlink.LinkAdd(l), netlink.LinkDel(l)); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 100 {
		fatal(t, n.Apply(t.Context(), []gateway.Identity{a}))
	}
	close(stop)
	fatal(t, <-done)
}
