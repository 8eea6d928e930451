package gateway_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

const (
	webPort = 80
	dnsPort = 53
)

// openListeners opens a TCP and a UDP service for some guests, each of which sends the guest its
// name.
func openListeners(t *testing.T, guests ...*guest) *gateway.TapListeners {
	t.Helper()
	d := gateway.NewTapListeners()
	d.Packets(dnsPort, echoName)
	go sayName(d.Listener(webPort))
	for _, g := range guests {
		fatal(t, d.Open(t.Context(), g.vm))
	}
	t.Cleanup(d.Shutdown)
	return d
}

func echoName(vm gateway.Identity, c net.PacketConn) {
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(vm.Name), from) // the guest misses it
	}
}

// sayName serves until l closes, and holds each connection until the guest goes or it is ended.
func sayName(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.WriteString(c, gateway.IdentityOf(c).Name) // the guest misses it
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close() // it is read to its end
		}()
	}
}

func twoGuests(t *testing.T) (a, b *guest) {
	t.Helper()
	return newGuest(t, vm(1, "alice", "10.213.0.2")), newGuest(t, vm(2, "bob", "10.213.0.3"))
}

// askAll expects each guest to get its own name from every listener.
func askAll(t *testing.T, guests ...*guest) {
	t.Helper()
	for _, g := range guests {
		for network, port := range map[string]uint16{"tcp": webPort, "udp": dnsPort} {
			if got, err := g.ask(network, port); got != g.vm.Name || err != nil {
				t.Errorf("%s gets by %s the name %q, %v", g.vm.Name, network, got, err)
			}
		}
	}
}

func TestListenersKnowWhoIsThere(t *testing.T) {
	a, b := twoGuests(t)
	d := openListeners(t, a, b)
	askAll(t, a, b)
	fatal(t, d.Open(t.Context(), a.vm))
	askAll(t, a, b)
}

// A guest with another guest's address has no identity, even where no rule drops such packets.
func TestListenersWantTheAddressToo(t *testing.T) {
	a, b := twoGuests(t)
	openListeners(t, a, b)
	a.do(func() {
		eth0, err := netlink.LinkByName("eth0")
		if err = errors.Join(err, netlink.AddrAdd(eth0, &netlink.Addr{IPNet: host(b.vm.Addr)})); err != nil {
			t.Error(err)
		}
	})
	c, err := a.dial(net.Dialer{LocalAddr: &net.UDPAddr{IP: b.vm.Addr.AsSlice()}}, "udp", dnsPort)
	fatal(t, err)
	defer c.Close()
	_, err = c.Write([]byte("who am I?"))
	fatal(t, err)
	fatal(t, c.SetReadDeadline(time.Now().Add(impatience)))
	if n, err := c.Read(make([]byte, 64)); err == nil {
		t.Errorf("with bob's address alice gets %d bytes", n)
	}
	askAll(t, a, b)
}

// Processes of the host reach LinkLocal as well, and bind to a tap without being root: they must
// not be identified as a VM.
func TestListenersAreShutToTheHost(t *testing.T) {
	a, b := twoGuests(t)
	openListeners(t, a, b)
	for _, tap := range []string{"", a.vm.Tap(), b.vm.Tap()} {
		for network, port := range map[string]string{"tcp": "80", "udp": "53"} {
			d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
				var bound error
				err := raw.Control(func(fd uintptr) { bound = syscall.BindToDevice(int(fd), tap) })
				return errors.Join(err, bound)
			}}
			c, err := d.DialContext(t.Context(), network, "169.254.169.254:"+port)
			if err != nil {
				continue // refused, which is right too
			}
			_, _ = c.Write([]byte("who am I?")) // the listener may be closed
			fatal(t, c.SetReadDeadline(time.Now().Add(impatience)))
			var name [64]byte
			if n, err := c.Read(name[:]); err == nil {
				t.Errorf("by %s on %q the host is identified as %s", network, tap, name[:n])
			}
			fatal(t, c.Close())
		}
	}
	askAll(t, a, b)
}

func TestListenersOpenAllOrNone(t *testing.T) {
	a, b := twoGuests(t)
	d := openListeners(t, b)
	for name, where := range map[string]struct{ network, addr, tap string }{
		"TCP, same tap":    {"tcp4", "169.254.169.254:80", a.vm.Tap()},
		"UDP, same tap":    {"udp4", "169.254.169.254:53", a.vm.Tap()},
		"TCP, all of host": {"tcp4", "0.0.0.0:80", ""},
		"UDP, all of host": {"udp4", "0.0.0.0:53", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if where.tap == "" {
				d.Close(b.vm.ID) // while one is open, no socket binds to all addresses
				defer func() { fatal(t, d.Open(t.Context(), b.vm)) }()
			}
			_, port, err := net.SplitHostPort(where.addr)
			fatal(t, err)
			squatting := squatter(t, where.network, where.addr, where.tap)
			err = d.Open(t.Context(), a.vm)
			e, ok := errors.AsType[*gateway.Error](err)
			if !ok || e.Kind != gateway.KindConflict || !strings.Contains(e.Msg, a.vm.Tap()) || !strings.Contains(e.Msg, "port "+port) {
				t.Fatalf("Open: %v; want a conflict that names tap and port", err)
			}
			if !strings.Contains(e.Hint, "ss -lntup") || !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("hint %q, cause %v", e.Hint, e.Err)
			}
			fatal(t, squatting.Close())
			for network, addr := range map[string]string{"tcp4": "169.254.169.254:80", "udp4": "169.254.169.254:53"} {
				fatal(t, squatter(t, network, addr, a.vm.Tap()).Close()) // nothing was left open
			}
			fatal(t, d.Open(t.Context(), a.vm))
			askAll(t, a)
			d.Close(a.vm.ID)
		})
	}
	askAll(t, b)
}

// Where the host's own server has the port, an optional service is left out, and opens elsewhere.
func TestOptionalServiceIsLeftOut(t *testing.T) {
	const ntpPort = 123
	a, b := twoGuests(t)
	d := gateway.NewTapListeners()
	d.Packets(dnsPort, echoName)
	d.PacketsUnlessTaken(ntpPort, echoName)
	t.Cleanup(d.Shutdown)
	taken := squatter(t, "udp4", "169.254.169.254:123", a.vm.Tap())
	defer taken.Close()
	for _, g := range []*guest{a, b} {
		fatal(t, d.Open(t.Context(), g.vm))
		if got, err := g.ask("udp", dnsPort); got != g.vm.Name || err != nil {
			t.Errorf("%s gets %q, %v", g.vm.Name, got, err)
		}
	}
	if got, err := b.ask("udp", ntpPort); got != "bob" || err != nil {
		t.Errorf("the service where it is free: %q, %v", got, err)
	}
}

// squatter takes an address that a listener needs.
func squatter(t *testing.T, network, addr, tap string) io.Closer {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		_ = raw.Control(func(fd uintptr) { err = syscall.BindToDevice(int(fd), tap) }) // it fails only on closed sockets
		return err
	}}
	var c io.Closer
	var err error
	if network == "tcp4" {
		c, err = config.Listen(t.Context(), network, addr)
	} else {
		c, err = config.ListenPacket(t.Context(), network, addr)
	}
	fatal(t, err)
	return c
}

func TestListenersRefuse(t *testing.T) {
	a, _ := twoGuests(t)
	d := openListeners(t)
	if d.Open(t.Context(), gateway.Identity{Number: 1}) == nil {
		t.Error("Open accepted an unknown VM")
	}
	if err := d.Open(t.Context(), vm(9, "nobody", "10.213.0.9")); err == nil || !strings.Contains(err.Error(), "lg00000009") {
		t.Errorf("Open without a tap: %v", err)
	}
	d.Close(gateway.NewID()) // of an unknown VM
	d.Shutdown()
	d.Shutdown()
	if err := d.Open(t.Context(), a.vm); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Open after Shutdown: %v", err)
	}
}

// A tap that is made anew has the old name and new sockets.
func TestListenersFollowANewTap(t *testing.T) {
	a, b := twoGuests(t)
	d := openListeners(t, a, b)
	a.unplug(t)
	a.plug(t)
	fatal(t, d.Open(t.Context(), a.vm))
	askAll(t, a, b)
}

// hold makes a connection and waits until its listener has sent its name.
func hold(t *testing.T, g *guest) net.Conn {
	t.Helper()
	c, err := g.dial(net.Dialer{}, "tcp", webPort)
	fatal(t, err)
	t.Cleanup(func() { _ = c.Close() }) // some are ended by then
	if name, err := readName(c); name != g.vm.Name || err != nil {
		t.Fatalf("%s gets the name %q, %v", g.vm.Name, name, err)
	}
	return c
}

func TestCloseEndsLiveConnections(t *testing.T) {
	a, b := twoGuests(t)
	d := openListeners(t, a, b)
	alice, bob := hold(t, a), hold(t, b)
	d.Close(a.vm.ID)
	if _, err := readName(alice); !errors.Is(err, io.EOF) {
		t.Errorf("alice's connection: %v, want EOF", err)
	}
	for network, port := range map[string]uint16{"tcp": webPort, "udp": dnsPort} {
		if _, err := a.ask(network, port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("alice at %s: %v, want refused", network, err)
		}
	}
	fatal(t, bob.(*net.TCPConn).CloseWrite())
	if _, err := readName(bob); !errors.Is(err, io.EOF) {
		t.Errorf("bob's connection: %v", err) // it was alive, and bob has ended it
	}
	askAll(t, b)
	fatal(t, d.Open(t.Context(), a.vm))
	askAll(t, a, b)
}

// Servers finish their live connections; TapListeners only stops accepting.
func TestShutdownLeavesLiveConnections(t *testing.T) {
	a, _ := twoGuests(t)
	d := gateway.NewTapListeners()
	l := d.Listener(webPort)
	fatal(t, d.Open(t.Context(), a.vm))
	var client net.Conn
	var dialed error
	var dialing sync.WaitGroup
	dialing.Go(func() { client, dialed = a.dial(net.Dialer{}, "tcp", webPort) })
	server, err := l.Accept()
	fatal(t, err)
	dialing.Wait()
	fatal(t, dialed)
	defer client.Close()
	d.Shutdown()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Shutdown: %v", err)
	}
	_, err = io.WriteString(server, "goodbye")
	fatal(t, err)
	fatal(t, server.Close())
	if got, err := io.ReadAll(client); string(got) != "goodbye" || err != nil {
		t.Errorf("the client read %q, %v", got, err)
	}
}

// A multipath connection could take in subflows from another VM's tap.
func TestListenersTakeNoMultipathTCP(t *testing.T) {
	a, _ := twoGuests(t)
	openListeners(t, a)
	var d net.Dialer
	d.SetMultipathTCP(true)
	c, err := a.dial(d, "tcp", webPort)
	fatal(t, err)
	defer c.Close()
	if multipath, err := c.(*net.TCPConn).MultipathTCP(); multipath || err != nil {
		t.Errorf("multipath TCP: %v, %v", multipath, err)
	}
}

// However Open and Close are interleaved, no guest ever gets another's name.
func TestListenersAtOnce(t *testing.T) {
	a, b := twoGuests(t)
	d := openListeners(t, a, b)
	ctx, cancel := context.WithCancel(t.Context())
	var moving sync.WaitGroup
	for _, g := range []*guest{a, a, b} {
		moving.Go(func() {
			for ctx.Err() == nil {
				d.Close(g.vm.ID)
				if err := d.Open(t.Context(), g.vm); err != nil {
					t.Errorf("open: %v", err)
				}
			}
		})
	}
	var asking sync.WaitGroup
	for _, g := range []*guest{a, b} {
		asking.Go(func() {
			for range 100 {
				if name, err := g.ask("tcp", webPort); err == nil && name != g.vm.Name {
					t.Errorf("%s gets the name %q", g.vm.Name, name)
				}
			}
		})
	}
	asking.Wait()
	cancel()
	moving.Wait()
	askAll(t, a, b)
}
