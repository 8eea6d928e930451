package netid

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// node is a machine at the other end of a tap: a network namespace with a kernel of its own. Its
// interface is a second tap, and frames are copied between the two, as QEMU would.
type node struct {
	wire *os.File // the host's tap: what is written here arrives at the host
	work chan func()
	mu   sync.Mutex
	seen [][]byte // ARP frames that the host sent
	odd  [][]byte // frames of the host with the payload "attack"
}

// newNode puts a machine at an existing tap of the host. Its first address gets the default route,
// by via.
func newNode(t *testing.T, tap string, mac net.HardwareAddr, via netip.Addr, addrs ...netip.Prefix) *node {
	t.Helper()
	n := &node{wire: attach(t, tap), work: make(chan func())}
	var in *os.File
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with its namespace
		entered <- syscall.Unshare(syscall.CLONE_NEWNET)
		for f := range n.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { close(n.work) })
	n.do(func() {
		in = attach(t, "eth0")
		setUp(t, "lo")
		setUp(t, "eth0", addrs...)
		eth0 := link(t, "eth0")
		must(t, netlink.LinkSetHardwareAddr(eth0, mac))
		must(t, netlink.RouteAdd(&netlink.Route{
			LinkIndex: eth0.Attrs().Index, Flags: int(netlink.FLAG_ONLINK), Gw: via.AsSlice(), Src: addrs[0].Addr().AsSlice(),
		}))
	})
	go n.carry(in, n.wire)
	go n.carry(n.wire, in)
	return n
}

// newGuest is newNode for a VM that is up.
func newGuest(t *testing.T, vm gateway.Identity) *node {
	t.Helper()
	return newNode(t, vm.Tap(), vm.MAC(), gateway.LinkLocal, netip.PrefixFrom(vm.Addr, 32))
}

// carry copies frames until one end is closed.
func (n *node) carry(to io.Writer, from io.Reader) {
	frame := make([]byte, 1<<16)
	for {
		size, err := from.Read(frame)
		if err != nil {
			return
		}
		if from == n.wire && size > 14 && frame[12] == etherARP>>8 && frame[13] == etherARP&0xff {
			n.mu.Lock()
			n.seen = append(n.seen, append([]byte{}, frame[:size]...))
			n.mu.Unlock()
		}
		if from == n.wire && bytes.Contains(frame[:size], []byte("attack")) {
			n.mu.Lock()
			n.odd = append(n.odd, append([]byte{}, frame[:size]...))
			n.mu.Unlock()
		}
		if _, err := to.Write(frame[:size]); err != nil {
			return
		}
	}
}

// arpAnswers counts the ARP replies of the host so far.
func (n *node) arpAnswers() int { return n.countARP(func([]byte) bool { return true }) }

// arpFor counts those for addr.
func (n *node) arpFor(addr netip.Addr) int {
	return n.countARP(func(f []byte) bool { return bytes.Equal(f[28:32], addr.AsSlice()) })
}

func (n *node) countARP(match func([]byte) bool) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := 0
	for _, f := range n.seen {
		if f[21] == 2 && match(f) { // operation
			count++
		}
	}
	return count
}

// do runs f inside the node's namespace. f must not call t.Fatal.
func (n *node) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

// dial connects from inside the node.
func (n *node) dial(network, addr string, d net.Dialer) (c net.Conn, err error) {
	n.do(func() { c, err = d.Dial(network, addr) })
	return c, err
}

// send puts a frame on the wire as it is.
func (n *node) send(t *testing.T, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if _, err := n.wire.Write(f); err != nil {
			t.Fatalf("send frame: %v", err)
		}
	}
}

// attach opens a tap, making it if there is none. It ends with the test.
func attach(t *testing.T, name string) *os.File {
	t.Helper()
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: netlink.TUNTAP_NO_PI, NonPersist: true, Queues: 1,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		t.Errorf("open tap %s: %v", name, err)
		return nil
	}
	t.Cleanup(func() { _ = tap.Fds[0].Close() }) // may be closed already
	return tap.Fds[0]
}

func setUp(t *testing.T, name string, addrs ...netip.Prefix) {
	t.Helper()
	must(t, os.WriteFile(fmt.Sprintf("/proc/sys/net/ipv6/conf/%s/accept_dad", name), []byte("0"), 0))
	must(t, netlink.LinkSetUp(link(t, name)))
	for _, p := range addrs {
		mask := net.CIDRMask(p.Bits(), p.Addr().BitLen())
		must(t, netlink.AddrAdd(link(t, name), &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: mask}}))
	}
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

// must may be called from a node's own goroutine, so that it does not end the test.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
