package netid

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// The addresses of the lab. The host's uplink leads to one machine, outside, which plays its
// neighbour, the networks behind it and the internet.
var (
	guestNet    = netip.MustParsePrefix("10.213.0.0/16")
	uplink      = netip.MustParsePrefix("198.51.100.1/24")
	neighbour   = netip.MustParsePrefix("198.51.100.2/24")
	internet    = netip.MustParsePrefix("203.0.113.7/32")
	private     = netip.MustParsePrefix("192.168.7.7/32")
	hostIPv6    = netip.MustParsePrefix("2001:db8::1/128")
	outsideMAC  = net.HardwareAddr{2, 0, 0, 0, 0, 9}
	uplinkMAC   = net.HardwareAddr{2, 0, 0, 0, 0, 8}
	openPort    = uint16(53)   // a listener
	closedPort  = uint16(9999) // open everywhere but to guests
	closedHost  = ":9999"
	patience    = 10 * time.Second
	impatience  = 300 * time.Millisecond // for what must never come
	quietLogger = slog.New(slog.DiscardHandler)
)

// lab is a host with two VMs and an outside. Every datagram that a listener receives is sent to
// received.
type lab struct {
	net        *Net
	listeners  *gateway.TapListeners
	a, b       gateway.Identity
	alice, bob *node
	outside    *node
	host       net.PacketConn
	received   chan arrival
	markers    int
}

type arrival struct{ where, payload string }

func vm(number uint32, name, addr string) gateway.Identity {
	return gateway.Identity{ID: gateway.NewID(), Number: number, Name: name, Addr: netip.MustParseAddr(addr)}
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{
		net:       New(Config{Net: guestNet, TCP: []uint16{80}, UDP: []uint16{openPort}, Logger: quietLogger}),
		listeners: gateway.NewTapListeners(),
		a:         vm(1, "alice", "10.213.0.2"), b: vm(2, "bob", "10.213.0.3"),
		received: make(chan arrival, 1024),
	}
	l.raiseOutside(t)
	fatal(t, l.net.Apply(t.Context(), []gateway.Identity{l.a, l.b}))
	t.Cleanup(func() {
		if err := l.net.Apply(context.WithoutCancel(t.Context()), nil); err != nil {
			t.Errorf("take all down: %v", err)
		}
	})
	l.alice, l.bob = newGuest(t, l.a), newGuest(t, l.b)
	l.openListeners(t)
	l.host = l.listen(t, "host", nil, closedHost)
	l.listen(t, "host's own DNS", nil, "198.51.100.1:53")
	l.listen(t, "host's own DNS on loopback", nil, "127.0.0.1:53")
	l.listen(t, "alice", l.alice, closedHost)
	l.listen(t, "bob", l.bob, closedHost)
	l.listen(t, "outside", l.outside, closedHost)
	answer(t, nil, closedHost)
	answer(t, l.bob, closedHost)
	for _, port := range []string{":25", ":80", closedHost} {
		answer(t, l.outside, port)
	}
	l.settle(t)
	return l
}

func (l *lab) raiseOutside(t *testing.T) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI}))
	t.Cleanup(func() { must(t, netlink.LinkDel(link(t, "up0"))) })
	must(t, netlink.LinkSetHardwareAddr(link(t, "up0"), uplinkMAC))
	setUp(t, "up0", uplink, hostIPv6)
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link(t, "up0").Attrs().Index, Gw: neighbour.Addr().AsSlice()}))
	l.outside = newNode(t, "up0", outsideMAC, uplink.Addr(), neighbour, internet, private)
}

// openListeners sends each guest its name by TCP, and collects its datagrams.
func (l *lab) openListeners(t *testing.T) {
	t.Helper()
	names := l.listeners.Listener(80)
	l.listeners.Packets(openPort, func(vm gateway.Identity, c net.PacketConn) { l.receive("listener of "+vm.Name, c) })
	go serve(names, func(c net.Conn) string { return gateway.IdentityOf(c).Name })
	for _, vm := range []gateway.Identity{l.a, l.b} {
		fatal(t, l.listeners.Open(t.Context(), vm))
	}
	t.Cleanup(l.listeners.Shutdown)
}

// serve writes one line to each caller and holds the connection until the caller goes.
func serve(at net.Listener, line func(net.Conn) string) {
	for {
		c, err := at.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = fmt.Fprintln(c, line(c)) // the reader sees what is missing
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close() // it is read to its end
		}()
	}
}

// answer serves TCP on a node (nil: the host) with the caller's address.
func answer(t *testing.T, at *node, addr string) {
	t.Helper()
	var l net.Listener
	inside(at, func() {
		var err error
		l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		must(t, err)
	})
	t.Cleanup(func() { _ = l.Close() }) // cannot fail in a way that matters here
	go serve(l, func(c net.Conn) string { return c.RemoteAddr().(*net.TCPAddr).IP.String() })
}

func (l *lab) listen(t *testing.T, where string, at *node, addr string) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	inside(at, func() {
		var err error
		c, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", addr)
		must(t, err)
	})
	t.Cleanup(func() { _ = c.Close() }) // cannot fail in a way that matters here
	go l.receive(where, c)
	return c
}

func inside(at *node, f func()) {
	if at == nil {
		f()
		return
	}
	at.do(f)
}

func (l *lab) receive(where string, c net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		l.received <- arrival{where, string(buf[:n])}
	}
}

// from returns a valid datagram from a guest to its listener.
func from(vm gateway.Identity, payload string) datagram {
	return datagram{
		srcMAC: vm.MAC(), dstMAC: hostMAC(vm), src: vm.Addr, dst: gateway.LinkLocal, port: openPort, payload: payload,
	}
}

// fromOutside returns a valid datagram from the neighbour to the host.
func fromOutside(payload string) datagram {
	return datagram{
		srcMAC: outsideMAC, dstMAC: uplinkMAC, src: neighbour.Addr(), dst: uplink.Addr(), port: closedPort, payload: payload,
	}
}

// settle sends one datagram along every way and to every socket, and waits for all of them. Ways and
// sockets keep the order, so what was sent earlier and was not received by then never will be. It
// returns what else was received.
func (l *lab) settle(t *testing.T) []arrival {
	t.Helper()
	l.markers++
	marker := fmt.Sprintf("marker %d", l.markers)
	l.alice.send(t, from(l.a, marker).frame())
	l.bob.send(t, from(l.b, marker).frame())
	l.outside.send(t, fromOutside(marker).frame())
	for _, to := range []string{"10.213.0.2:9999", "10.213.0.3:9999", "198.51.100.2:9999", "198.51.100.1:53", "127.0.0.1:53"} {
		_, err := l.host.WriteTo([]byte(marker), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		fatal(t, err)
	}
	missing := []string{
		"listener of alice", "listener of bob", "host", "alice", "bob", "outside",
		"host's own DNS", "host's own DNS on loopback",
	}
	var others []arrival
	deadline := time.After(patience)
	for len(missing) > 0 {
		select {
		case h := <-l.received:
			if h.payload == marker {
				missing = slices.DeleteFunc(missing, func(s string) bool { return s == h.where })
			} else {
				others = append(others, h)
			}
		case <-deadline:
			t.Fatalf("valid datagrams were lost: to %s", strings.Join(missing, ", "))
		}
	}
	return others
}

// whoAmI asks the listener, from inside the guest.
func whoAmI(t *testing.T, n *node) string {
	t.Helper()
	line, err := n.ask("169.254.169.254:80", patience)
	fatal(t, err)
	return line
}

// ask dials and reads the line that serve writes.
func (n *node) ask(addr string, timeout time.Duration) (string, error) {
	c, err := n.dial("tcp", addr, net.Dialer{Timeout: timeout})
	if err != nil {
		return "", err
	}
	return readLine(c)
}

func readLine(c net.Conn) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience)) // only a closed connection refuses, and the read fails too
	defer c.Close()
	var line string
	_, err := fmt.Fscanln(c, &line)
	return line, err
}

func nft(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
