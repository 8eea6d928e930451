package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"lodge/e2e/harness"
	"lodge/gateway"
	"lodge/gateway/store"
)

// recordVM records a VM before the daemon starts, with its forwards. No libvirtd has it.
func recordVM(t *testing.T, h *harness.Host, forwards ...string) gateway.VM {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(h.StateDir, "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	vms, err := gateway.OpenDirectory(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := vms.Create(t.Context(), gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: "alpha"}, Desired: gateway.Running, Ready: true, Incarnation: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range forwards {
		f, err := gateway.ParseForward(text)
		if err != nil {
			t.Fatal(err)
		}
		f.VM = vm.ID
		if err := db.Forwards().Claim(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	return vm
}

// guest is a network namespace at the VM's tap. Frames are copied between the tap and its own, as
// QEMU would.
type guest struct{ work chan func() }

// plugGuest waits until the daemon has made the tap.
func plugGuest(t *testing.T, vm gateway.VM) *guest {
	t.Helper()
	g := &guest{work: make(chan func())}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		entered <- syscall.Unshare(syscall.CLONE_NEWNET)
		for f := range g.work {
			f()
		}
	}()
	if err := <-entered; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(g.work) })
	harness.Eventually(t, "the VM has a tap", time.Minute, func() error {
		_, err := net.InterfaceByName(vm.Tap())
		return err
	})
	var host, own *os.File
	host, err := attach(t, vm.Tap())
	if err != nil {
		t.Fatal(err)
	}
	g.do(func() {
		if own, err = attach(t, "eth0"); err == nil {
			err = setUpGuest(vm)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	go carry(own, host)
	go carry(host, own)
	return g
}

// attach opens a tap until the test ends, and makes it if there is none. One that a VM of an earlier test
// has left still lets the kernel leave checksums to QEMU, which nobody here computes.
func attach(t *testing.T, name string) (*os.File, error) {
	t.Helper()
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI, NonPersist: true, Queues: 1,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, fmt.Errorf("open tap %s: %w", name, err)
	}
	t.Cleanup(func() { _ = tap.Fds[0].Close() }) // it ends carry
	raw, err := tap.Fds[0].SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, 0) }) //nolint:gosec // a descriptor fits
	return tap.Fds[0], errors.Join(err, failed)
}

func setUpGuest(vm gateway.VM) error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	for _, err := range []error{
		netlink.LinkSetHardwareAddr(eth0, vm.MAC()), netlink.LinkSetUp(eth0),
		netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: vm.Addr.AsSlice(), Mask: net.CIDRMask(32, 32)}}),
		netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Flags: int(netlink.FLAG_ONLINK), Gw: gateway.LinkLocal.AsSlice()}),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// carry copies frames until from is closed. A frame that comes while the other end is still down is
// lost, as on a wire.
func carry(to io.Writer, from io.Reader) {
	frame := make([]byte, 1<<16)
	for {
		n, err := from.Read(frame)
		if err != nil {
			return
		}
		_, _ = to.Write(frame[:n]) // see above
	}
}

// do runs f inside the guest.
func (g *guest) do(f func()) {
	done := make(chan struct{})
	g.work <- func() { defer close(done); f() }
	<-done
}

// dial connects from inside the guest.
func (g *guest) dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	g.do(func() { c, err = new(net.Dialer).DialContext(ctx, network, addr) })
	return c, err
}

// echo sends back what comes to a port of the guest, by TCP and UDP.
func (g *guest) echo(t *testing.T, vm gateway.VM, port uint16) {
	t.Helper()
	at := netip.AddrPortFrom(vm.Addr, port).String()
	var l net.Listener
	var c net.PacketConn
	var err error
	g.do(func() {
		if l, err = new(net.ListenConfig).Listen(t.Context(), "tcp", at); err == nil {
			c, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", at)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); c.Close() }) // it ends the loops
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // the client compares what arrives
			}()
		}
	}()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(buf[:n], from) // as above
		}
	}()
}

// knocks are clients that connect anew for each of their exchanges, until they are stopped.
type knocks struct {
	name                    string
	cut                     bool // the end of a daemon may cut an exchange off, as that of a stream
	answered, refused, lost atomic.Int64
}

// String describes what has happened.
func (k *knocks) String() string {
	return fmt.Sprintf("%s: %d answered, %d refused, %d lost", k.name, k.answered.Load(), k.refused.Load(), k.lost.Load())
}

// knockPace is the time between two exchanges. A guest may have 4,096 connections, and one that is closed
// counts for two minutes more.
const knockPace = 100 * time.Millisecond

// startKnocks repeats exchange as long as the load lasts.
func (l *load) startKnocks(t *testing.T, name string, cut bool, exchange func(context.Context) error) *knocks {
	t.Helper()
	k := &knocks{name: name, cut: cut}
	l.all.Go(func() {
		pace := time.NewTicker(knockPace)
		defer pace.Stop()
		for ; !l.ended.Load(); <-pace.C {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			switch err := exchange(ctx); {
			case err == nil:
				k.answered.Add(1)
			case errors.Is(err, syscall.ECONNREFUSED):
				k.refused.Add(1)
				t.Logf("%s: %v", name, err)
			default:
				k.lost.Add(1)
				t.Logf("%s: %v", name, err)
			}
			cancel()
		}
	})
	return k
}

// goesOn waits until there were some answers more.
func (k *knocks) goesOn(t *testing.T) {
	t.Helper()
	until := k.answered.Load() + 5
	harness.Eventually(t, k.name+" is answered", 2*time.Minute, func() error {
		if k.answered.Load() < until {
			return errors.New(k.String())
		}
		return nil
	})
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// asks sends a request over TCP, and expects an answer that begins with want.
func asks(dial dialFunc, at, request, want string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := dial(ctx, "tcp", at)
		if err != nil {
			return err
		}
		defer c.Close()
		deadline, _ := ctx.Deadline()
		_ = c.SetDeadline(deadline) // a read reports it
		if _, err := io.WriteString(c, request); err != nil {
			return err
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if string(got) != want {
			return fmt.Errorf("%s answers %q", at, got)
		}
		return nil
	}
}

// asksUDP sends a datagram, each second again as clients of UDP do, until one comes back that begins
// alike.
func asksUDP(dial dialFunc, at string, datagram, want []byte) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := dial(ctx, "udp", at)
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, 1500)
		for {
			if _, err := c.Write(datagram); err != nil {
				return err
			}
			_ = c.SetReadDeadline(time.Now().Add(time.Second)) // a read reports it
			n, err := c.Read(buf)
			if err == nil && bytes.HasPrefix(buf[:n], want) {
				return nil
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
		}
	}
}

// question asks for the guest's own name.
func question(t *testing.T) []byte {
	t.Helper()
	packed, err := new(dns.Msg).SetQuestion("alpha.lodge.internal.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

// knockEverywhere has clients at the forwarded ports 2222 (TCP) and 5353 (UDP) of the host, and a guest
// at the services on its tap.
func (l *load) knockEverywhere(t *testing.T, vm gateway.VM) []*knocks {
	t.Helper()
	g := plugGuest(t, vm)
	g.echo(t, vm, 22)
	host, query := new(net.Dialer).DialContext, question(t)
	return []*knocks{
		l.startKnocks(t, "a forwarded TCP port", true, asks(host, "127.0.0.1:2222", "hello", "hello")),
		l.startKnocks(t, "a forwarded UDP port", false, asksUDP(host, "127.0.0.1:5353", []byte("hello"), []byte("hello"))),
		l.startKnocks(t, "metadata on the tap", false, asks(g.dial, "169.254.169.254:80", "GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 ")),
		l.startKnocks(t, "IMAP on the tap", true, asks(g.dial, "169.254.169.254:143", "", "* ")),
		l.startKnocks(t, "DNS on the tap", false, asksUDP(g.dial, "169.254.169.254:53", query, query[:2])),
	}
}
