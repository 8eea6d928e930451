package gateway_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// patience is how long a test waits for data that must come.
const patience = 10 * time.Second

// impatience is how long it waits for data that must not.
const impatience = 200 * time.Millisecond

func vm(number uint32, name, addr string) gateway.Identity {
	return gateway.Identity{ID: gateway.NewID(), Number: number, Name: name, Addr: netip.MustParseAddr(addr)}
}

// guest is a network namespace that plays a VM. Its wire is a veth pair, whose end at the host has
// the name of the tap.
type guest struct {
	vm   gateway.Identity
	work chan func()
	ns   *os.File
}

func newGuest(t *testing.T, vm gateway.Identity) *guest {
	t.Helper()
	g := &guest{vm: vm, work: make(chan func())}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with its namespace
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		if err == nil {
			g.ns, err = os.Open("/proc/thread-self/ns/net")
		}
		entered <- err
		for f := range g.work {
			f()
		}
	}()
	fatal(t, <-entered)
	g.plug(t)
	t.Cleanup(func() {
		g.unplug(t)
		close(g.work)
		_ = g.ns.Close() // opened for reading only
	})
	return g
}

// plug makes the wire, as vmhost/netid makes a tap.
func (g *guest) plug(t *testing.T) {
	t.Helper()
	fatal(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: g.vm.Tap()}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(g.ns.Fd())),
	}))
	up(t, g.vm.Tap(), gateway.LinkLocal, g.vm.Addr)
	g.do(func() { up(t, "eth0", g.vm.Addr, gateway.LinkLocal) })
}

func (g *guest) unplug(t *testing.T) {
	t.Helper()
	wire, err := netlink.LinkByName(g.vm.Tap())
	fatal(t, err)
	fatal(t, netlink.LinkDel(wire))
}

// do runs f inside the guest.
func (g *guest) do(f func()) {
	done := make(chan struct{})
	g.work <- func() { defer close(done); f() }
	<-done
}

// dial connects to a listener, from inside the guest.
func (g *guest) dial(d net.Dialer, network string, port uint16) (c net.Conn, err error) {
	d.Timeout = patience
	g.do(func() { c, err = d.Dial(network, fmt.Sprintf("169.254.169.254:%d", port)) })
	return c, err
}

// ask dials and reads the line that a listener sends.
func (g *guest) ask(network string, port uint16) (string, error) {
	c, err := g.dial(net.Dialer{}, network, port)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write([]byte("who am I?")); err != nil {
		return "", err
	}
	return readName(c)
}

func readName(c net.Conn) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience)) // only a closed connection refuses, and the read fails too
	var buf [64]byte
	n, err := c.Read(buf[:])
	return string(buf[:n]), err
}

// up brings an interface up with one address, and a route to the other end.
func up(t *testing.T, name string, own, peer netip.Addr) {
	t.Helper()
	wire, err := netlink.LinkByName(name)
	if err == nil {
		err = errors.Join(
			netlink.LinkSetUp(wire),
			netlink.AddrAdd(wire, &netlink.Addr{IPNet: host(own)}),
			netlink.RouteAdd(&netlink.Route{
				LinkIndex: wire.Attrs().Index, Dst: host(peer), Src: own.AsSlice(), Scope: netlink.SCOPE_LINK,
			}),
		)
	}
	if err != nil {
		t.Errorf("set up %s: %v", name, err)
	}
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
