package netid

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// probe is a datagram of alice's (or of the neighbour's) that goes wrong in one point.
type probe struct {
	name string
	d    datagram
}

func (l *lab) guestProbes() []probe {
	p := func(name string, change func(*datagram)) probe {
		d := from(l.a, "attack")
		change(&d)
		return probe{name, d}
	}
	to := func(addr string) func(*datagram) {
		return func(d *datagram) { d.dst, d.port = netip.MustParseAddr(addr), closedPort }
	}
	return []probe{
		p("foreign source address", func(d *datagram) { d.src = l.b.Addr }),
		p("foreign hardware address", func(d *datagram) { d.srcMAC = l.b.MAC() }),
		p("both", func(d *datagram) { d.src, d.srcMAC = l.b.Addr, l.b.MAC() }),
		p("both, to the other's tap", func(d *datagram) { d.src, d.srcMAC, d.dstMAC = l.b.Addr, l.b.MAC(), hostMAC(l.b) }),
		p("no source address", func(d *datagram) { d.src = netip.IPv4Unspecified() }),
		p("source is a free guest address", func(d *datagram) { d.src = netip.MustParseAddr("10.213.0.9") }),
		p("source is the gateway", func(d *datagram) { d.src = gateway.LinkLocal }),
		p("source is the host", func(d *datagram) { d.src = uplink.Addr() }),
		p("source is loopback", func(d *datagram) { d.src = netip.MustParseAddr("127.0.0.1") }),
		p("source is on the internet", func(d *datagram) { d.src = internet.Addr() }),
		p("port that is no listener", func(d *datagram) { d.port = closedPort }),
		p("host's uplink address", to("198.51.100.1")),
		p("host's uplink address, port of a listener", func(d *datagram) { d.dst = uplink.Addr() }),
		p("host's loopback address, port of a listener", func(d *datagram) { d.dst = netip.MustParseAddr("127.0.0.1") }),
		p("host's loopback address", to("127.0.0.1")),
		p("host's IPv6 address", func(d *datagram) {
			d.src, d.dst, d.port = netip.MustParseAddr("2001:db8::2"), hostIPv6.Addr(), closedPort
		}),
		p("broadcast", to("255.255.255.255")),
		p("multicast", to("224.0.0.1")),
		p("other guest", to("10.213.0.3")),
		p("other guest, as the gateway", func(d *datagram) { to("10.213.0.3")(d); d.src = gateway.LinkLocal }),
		p("host's neighbour", to("198.51.100.2")),
		p("private network", to("192.168.7.7")),
	}
}

func (l *lab) outsideProbes() []probe {
	p := func(name string, change func(*datagram)) probe {
		d := fromOutside("attack")
		change(&d)
		return probe{name, d}
	}
	return []probe{
		p("source is a guest", func(d *datagram) { d.src = l.a.Addr }),
		p("guest", func(d *datagram) { d.dst = l.a.Addr }),
		p("guest, as the other guest", func(d *datagram) { d.dst, d.src = l.a.Addr, l.b.Addr }),
		p("guest, as the gateway", func(d *datagram) { d.dst, d.src = l.a.Addr, gateway.LinkLocal }),
		p("listener", func(d *datagram) { d.dst, d.port = gateway.LinkLocal, openPort }),
	}
}

func TestDatagramsThatNobodyMayHear(t *testing.T) {
	l := newLab(t)
	try := func(name string, at *node, p probe) {
		t.Run(name+"/"+p.name, func(t *testing.T) {
			at.send(t, p.d.frame())
			if got := l.settle(t); len(got) > 0 {
				t.Errorf("received %v, want silence", got)
			}
		})
	}
	for _, p := range l.guestProbes() {
		try("guest", l.alice, p)
	}
	for _, p := range l.outsideProbes() {
		try("outside", l.outside, p)
	}
}

// Without rules some of the same datagrams are received, so the rules cause the silence above. Apply
// restores what another tool has flushed.
func TestFlushedRulesComeBack(t *testing.T) {
	l := newLab(t)
	heardNow := func() map[string]string {
		all := map[string]string{}
		for _, p := range append(l.guestProbes(), l.outsideProbes()...) {
			at := l.alice
			if p.d.srcMAC.String() == outsideMAC.String() {
				at = l.outside
			}
			at.send(t, p.d.frame())
			for _, h := range l.settle(t) {
				all[p.name] = h.where
			}
		}
		return all
	}
	nft(t, "flush", "ruleset")
	want := map[string]string{
		"foreign hardware address":                  "listener of alice",
		"port that is no listener":                  "host",
		"host's uplink address":                     "host",
		"host's uplink address, port of a listener": "host's own DNS",
		"broadcast":                 "host",
		"other guest":               "bob",
		"host's neighbour":          "outside",
		"private network":           "outside",
		"source is a guest":         "host",
		"guest":                     "alice",
		"guest, as the other guest": "alice",
	}
	if diff := cmp.Diff(want, heardNow()); diff != "" {
		t.Errorf("received without rules (-want +got):\n%s", diff)
	}
	fatal(t, l.net.Apply(t.Context(), []gateway.Identity{l.a, l.b}))
	if got := heardNow(); len(got) > 0 {
		t.Errorf("received after Apply: %v", got)
	}
}

// A fragment with the neighbour's address must not get into the neighbour's packet.
func TestFragments(t *testing.T) {
	l := newLab(t)
	whole := from(l.b, "0123456789abcdef the second half")
	first, second := whole.fragments(7)
	l.bob.send(t, first, second)
	if got, want := l.settle(t), []arrival{{"listener of bob", whole.payload}}; !cmp.Equal(got, want, cmp.AllowUnexported(arrival{})) {
		t.Fatalf("received %v, want %v", got, want)
	}
	forged := from(l.b, "attacked, indeed, the second half")
	forged.dstMAC = hostMAC(l.a)
	for _, mac := range []net.HardwareAddr{l.a.MAC(), l.b.MAC()} {
		forged.srcMAC = mac
		first, _ := forged.fragments(8)
		_, second := from(l.b, forged.payload).fragments(8)
		l.alice.send(t, first)
		l.bob.send(t, second)
		if got := l.settle(t); len(got) > 0 {
			t.Errorf("received %v, want silence", got)
		}
	}
}

// Whatever a guest claims by ARP, the host uses the daemon's entries, and does not answer for other
// addresses.
func TestARPClaimsChangeNothing(t *testing.T) {
	l := newLab(t)
	before := neighbours(t)
	answers := l.alice.arpAnswers()
	for _, op := range []uint16{1, 2} {
		for _, mac := range []net.HardwareAddr{l.a.MAC(), l.b.MAC(), outsideMAC} {
			for _, ip := range []netip.Addr{l.b.Addr, gateway.LinkLocal, neighbour.Addr(), netip.IPv4Unspecified()} {
				l.alice.send(t, arp(op, mac, ip, ip), arp(op, mac, ip, gateway.LinkLocal))
			}
		}
		free := netip.MustParseAddr("10.213.9.0")
		for range 1500 { // more than the neighbour cache holds
			free = free.Next()
			l.alice.send(t, arp(op, l.a.MAC(), free, gateway.LinkLocal))
		}
		l.alice.send(t, arp(op, outsideMAC, l.a.Addr, gateway.LinkLocal))
	}
	for _, ip := range []netip.Addr{l.b.Addr, uplink.Addr(), neighbour.Addr()} {
		l.alice.send(t, arp(1, l.a.MAC(), l.a.Addr, ip))
	}
	l.outside.send(t, arp(1, outsideMAC, neighbour.Addr(), gateway.LinkLocal))
	if got := l.settle(t); len(got) > 0 {
		t.Errorf("received %v, want silence", got)
	}
	if diff := cmp.Diff(before, neighbours(t)); diff != "" {
		t.Errorf("neighbours changed (-before +after):\n%s", diff)
	}
	if got := l.alice.arpAnswers() - answers; got != 0 {
		t.Errorf("the host answered %d ARP requests that are not for it", got)
	}
	l.alice.send(t, arp(1, l.a.MAC(), l.a.Addr, gateway.LinkLocal))
	l.outside.send(t, arp(1, outsideMAC, neighbour.Addr(), uplink.Addr()))
	l.settle(t)
	if got := l.alice.arpAnswers() - answers; got != 1 {
		t.Errorf("the host answered %d ARP requests for its own address, want 1", got)
	}
	if got := l.outside.arpFor(gateway.LinkLocal); got != 0 {
		t.Errorf("the host answered for the gateway's address on its uplink")
	}
	if l.outside.arpFor(uplink.Addr()) == 0 {
		t.Errorf("the host did not answer for its own address on its uplink")
	}
	if got := [2]string{whoAmI(t, l.alice), whoAmI(t, l.bob)}; got != [2]string{"alice", "bob"} {
		t.Errorf("guests get the names %v", got)
	}
}

// neighbours maps the guests' addresses to the host's entries for them.
func neighbours(t *testing.T) map[string]string {
	t.Helper()
	all, err := netlink.NeighList(0, netlink.FAMILY_V4)
	fatal(t, err)
	m := map[string]string{}
	for _, n := range all {
		l, err := netlink.LinkByIndex(n.LinkIndex)
		fatal(t, err)
		if strings.HasPrefix(l.Attrs().Name, "lg") {
			m[l.Attrs().Name+" "+n.IP.String()] = n.HardwareAddr.String()
		}
	}
	return m
}

func TestConnections(t *testing.T) {
	l := newLab(t)
	for _, tt := range []struct {
		name, addr string
		want       string // the line that is read
		fails      string
	}{
		{"own listener", "169.254.169.254:80", "alice", ""},
		{"the internet, masqueraded", "203.0.113.7:80", "198.51.100.1", ""},
		{"the internet's port 25", "203.0.113.7:25", "", "refused"},
		{"a host's port that is no listener", "169.254.169.254:9999", "", "timeout"},
		{"host's uplink address", "198.51.100.1:9999", "", "timeout"},
		{"host's neighbour", "198.51.100.2:80", "", "timeout"},
		{"private network", "192.168.7.7:80", "", "timeout"},
		{"other guest", "10.213.0.3:9999", "", "timeout"},
		{"other guest's listener", "10.213.0.3:80", "", "timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			timeout := impatience
			if tt.want != "" {
				timeout = patience
			}
			got, err := l.alice.ask(tt.addr, timeout)
			if got != tt.want || failure(err) != tt.fails {
				t.Errorf("got %q, %v; want %q, %q", got, err, tt.want, tt.fails)
			}
		})
	}
}

// failure names how dialing failed.
func failure(err error) string {
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case ok && timeout.Timeout():
		return "timeout"
	}
	return err.Error()
}

// The host reaches guests (SSH, HTTP), and the outside does not; both controls use the same port.
func TestConnectionsToGuests(t *testing.T) {
	l := newLab(t)
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", "10.213.0.3:9999")
	fatal(t, err)
	if got, err := readLine(c); err != nil || got != gateway.LinkLocal.String() {
		t.Errorf("host to guest: came from %q, %v; want %s", got, err, gateway.LinkLocal)
	}
	if got, err := l.outside.ask("10.213.0.3:9999", impatience); failure(err) != "timeout" {
		t.Errorf("outside to guest: %q, %v; want a timeout", got, err)
	}
	if got, err := l.outside.ask("198.51.100.1:9999", patience); err != nil || got != "198.51.100.2" {
		t.Errorf("outside to host: %q, %v", got, err)
	}
}

// A process of the host is not identified as a guest, whichever tap it binds to.
func TestHostItselfReachesNoListener(t *testing.T) {
	l := newLab(t)
	for _, tap := range []string{"", l.a.Tap(), l.b.Tap()} {
		d := net.Dialer{Timeout: impatience, Control: func(_, _ string, raw syscall.RawConn) error {
			var bound error
			err := raw.Control(func(fd uintptr) { bound = syscall.BindToDevice(int(fd), tap) })
			return errors.Join(err, bound)
		}}
		if _, err := d.DialContext(t.Context(), "tcp", "169.254.169.254:80"); err == nil || tap == "" && failure(err) != "refused" {
			t.Errorf("on %q: %v", tap, err)
		}
	}
	if got := whoAmI(t, l.alice); got != "alice" {
		t.Errorf("alice is %q", got)
	}
}

// Only root reaches a guest's ports from the host; other users reach the gateway, which
// authenticates them, and the guest's sshd.
func TestOtherUsersOfTheHostReachOnlySSH(t *testing.T) {
	l := newLab(t)
	answer(t, l.alice, ":22")
	answer(t, l.alice, ":8080")
	for name, c := range map[string]struct {
		uid  uint32
		port string
		want bool
	}{
		"root, a page":   {0, "8080", true},
		"nobody, a page": {65534, "8080", false},
		"nobody, sshd":   {65534, "22", true},
	} {
		dial := exec.CommandContext(t.Context(), "timeout", "10", "bash", "-c", "read -r line </dev/tcp/10.213.0.2/"+c.port)
		dial.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.uid, Gid: c.uid}}
		if out, err := dial.CombinedOutput(); (err == nil) != c.want {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
}

// A guest whose kernel takes its neighbour's addresses has no identity, and its neighbour is not
// affected.
func TestGuestThatPosesAsItsNeighbour(t *testing.T) {
	l := newLab(t)
	source := net.Dialer{Timeout: impatience, LocalAddr: &net.TCPAddr{IP: l.b.Addr.AsSlice()}}
	l.alice.do(func() { must(t, netlink.AddrAdd(link(t, "eth0"), &netlink.Addr{IPNet: host(l.b.Addr)})) })
	if c, err := l.alice.dial("tcp", "169.254.169.254:80", source); err == nil {
		line, _ := readLine(c) // any line is a failure
		t.Errorf("with bob's address alice reaches the listener of %q", line)
	}
	if got := whoAmI(t, l.alice); got != "alice" {
		t.Errorf("with both addresses alice is %q", got)
	}
	l.alice.do(func() { must(t, netlink.LinkSetHardwareAddr(link(t, "eth0"), l.b.MAC())) })
	if c, err := l.alice.dial("tcp", "169.254.169.254:80", source); err == nil {
		line, _ := readLine(c) // any line is a failure
		t.Errorf("with both of bob's addresses alice reaches the listener of %q", line)
	}
	if _, err := l.alice.ask("169.254.169.254:80", impatience); err == nil {
		t.Errorf("with bob's hardware address alice reaches a listener")
	}
	if got := whoAmI(t, l.bob); got != "bob" {
		t.Errorf("bob is %q", got)
	}
}
