package forward

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/gateway/store"
)

// The tests have the loopback of a namespace of their own, so they may use any port.
func TestMain(m *testing.M) { sandboxtest.Main(m, outsideAddrs) }

// outsideAddrs gives the host addresses that are not loopback's: one to listen on, and clients.
func outsideAddrs() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, a := range []string{"192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32", "192.0.2.4/32"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return fmt.Errorf("add %s: %w", a, err)
		}
	}
	return nil
}

var (
	hostAddr = netip.MustParseAddr("192.0.2.1")
	loopback = netip.MustParseAddr("127.0.0.1")
)

// rig is a Server over a real store, which outlives it.
type rig struct {
	*Server
	store *store.Store
	dir   *gateway.Directory
	path  string
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{path: filepath.Join(t.TempDir(), "lodge.db")}
	r.start(t, change...)
	return r
}

// start makes the Server, as a start of the daemon does, and runs it until the test ends.
func (r *rig) start(t *testing.T, change ...func(*Config)) {
	t.Helper()
	db, err := store.Open(t.Context(), r.path, netip.MustParsePrefix("10.213.0.0/24"))
	gatewaytest.Must(t, err)
	r.store = db
	r.dir, err = gateway.OpenDirectory(t.Context(), db)
	gatewaytest.Must(t, err)
	cfg := Config{
		Directory: r.dir, Claims: db.Forwards(), Addrs: []netip.Addr{hostAddr, loopback},
		Own: map[gateway.HostPort]string{{Protocol: gateway.TCP, Port: 443}: "https_port"},
		Explain: func(_ context.Context, _ string, at netip.AddrPort, err error) error {
			return fmt.Errorf("%s: %w", at, err)
		},
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&cfg)
	}
	r.Server = New(cfg)
	gatewaytest.Must(t, r.restore(t.Context()))
	t.Cleanup(r.stop)
}

func (r *rig) stop() {
	_ = r.Shutdown(context.Background()) // never fails
	_ = r.store.Close()                  // of some tests it is a second time
}

func (r *rig) vm(t *testing.T, name string) gateway.VM {
	t.Helper()
	m, err := r.dir.Create(t.Context(), gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running, Ready: true, Incarnation: 1,
	})
	gatewaytest.Must(t, err)
	return m
}

func (r *rig) change(t *testing.T, vm gateway.VM, change func(*gateway.VM)) {
	t.Helper()
	_, err := r.dir.Update(t.Context(), vm.ID, func(m *gateway.VM) error { change(m); return nil })
	gatewaytest.Must(t, err)
}

func (r *rig) add(t *testing.T, vm gateway.VM, text string) gateway.Forward {
	t.Helper()
	f, err := gateway.ParseForward(text)
	gatewaytest.Must(t, err)
	f.VM = vm.ID
	_, err = r.Add(t.Context(), f)
	gatewaytest.Must(t, err)
	return f
}

// toLoopback is a Config.Dial to the same port of 127.0.0.1, for tests that need no guest.
func toLoopback(c *Config) {
	c.Dial = func(ctx context.Context, network string, _ gateway.VM, port uint16) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", port))
	}
}

// dial connects from an address of the host.
func dial(t *testing.T, network, from, to string) net.Conn {
	t.Helper()
	var local net.Addr = &net.TCPAddr{IP: net.ParseIP(from)}
	if network == "udp" {
		local = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	c, err := (&net.Dialer{LocalAddr: local}).DialContext(t.Context(), network, to)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some tests close it earlier
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// closed returns how a connection ended that must be closed at once, perhaps before it is open here.
func closed(from, to string) error {
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", to)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = c.Read(make([]byte, 1))
	return err
}

// echoTCP sends back what it reads, with its name in front.
func echoTCP(t *testing.T, name string, l net.Listener) {
	t.Helper()
	t.Cleanup(func() { _ = l.Close() }) // it ends the loop
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, name) // the client compares what arrives
				_, _ = io.Copy(c, c)           // as above
			}()
		}
	}()
}

// echoUDP sends each datagram back.
func echoUDP(t *testing.T, c net.PacketConn) {
	t.Helper()
	t.Cleanup(func() { _ = c.Close() }) // it ends the loop
	go func() {
		buf := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from) // the client compares what arrives
		}
	}()
}

func listenTCP(t *testing.T, at string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", at)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = l.Close() }) // some tests close it earlier
	return l
}

func listenUDP(t *testing.T, at string) net.PacketConn {
	t.Helper()
	c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", at)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // as above
	return c
}

// inGuest runs f on a thread in a network namespace that plays the VM, with a tap on the host.
// Sockets that f opens stay in there.
func inGuest(t *testing.T, vm gateway.VM, f func()) {
	t.Helper()
	ns := make(chan *os.File)
	wired, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			t.Error(err)
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
		}
		ns <- file
		<-wired
		up(t, "eth0", vm.Addr, gateway.LinkLocal)
		f()
	}()
	file := <-ns
	gatewaytest.Must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: vm.Tap()}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(file.Fd())),
	}))
	up(t, vm.Tap(), gateway.LinkLocal, vm.Addr)
	close(wired)
	<-done
	t.Cleanup(func() { _ = file.Close() }) // until then the namespace lives
}

func up(t *testing.T, name string, own, peer netip.Addr) {
	t.Helper()
	host := func(a netip.Addr) *net.IPNet { return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)} }
	wire, err := netlink.LinkByName(name)
	if err != nil {
		t.Error(err)
		return
	}
	for _, err := range []error{
		netlink.LinkSetUp(wire), netlink.AddrAdd(wire, &netlink.Addr{IPNet: host(own)}),
		netlink.RouteAdd(&netlink.Route{LinkIndex: wire.Attrs().Index, Dst: host(peer), Src: own.AsSlice(), Scope: netlink.SCOPE_LINK}),
	} {
		if err != nil {
			t.Errorf("set up %s: %v", name, err)
		}
	}
}
