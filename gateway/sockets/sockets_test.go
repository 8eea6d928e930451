package sockets_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
	"lodge/gateway/sockets"
)

// The tests have the loopback of a namespace of their own, so they may use any port.
func TestMain(m *testing.M) { sandboxtest.Main(m) }

const (
	at    = "127.0.0.1:2222"
	other = "127.0.0.1:3333"
)

func openTCP(t *testing.T, s *sockets.Set, name, at string) net.Listener {
	t.Helper()
	l, err := sockets.Open(s, name, sockets.At{Network: "tcp", Addr: at}, func() (net.Listener, error) {
		return new(net.ListenConfig).Listen(t.Context(), "tcp", at)
	})
	gatewaytest.Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func openUDP(t *testing.T, s *sockets.Set, name, at string) net.PacketConn {
	t.Helper()
	c, err := sockets.Open(s, name, sockets.At{Network: "udp", Addr: at}, func() (net.PacketConn, error) {
		return new(net.ListenConfig).ListenPacket(t.Context(), "udp", at)
	})
	gatewaytest.Must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

// next is the Set of the daemon after the one of s, which has ended. Its sockets come from the store,
// or else from s.
func next(t *testing.T, s *sockets.Set, d *store) *sockets.Set {
	t.Helper()
	if d == nil {
		return gatewaytest.PassOn(t, s)
	}
	s.Close()
	after := sockets.New(d)
	t.Cleanup(after.Close)
	for name, all := range d.held {
		for _, file := range all {
			gatewaytest.Inherit(t, after, name, dup(t, file), true)
		}
	}
	return after
}

func dup(t *testing.T, file *os.File) *os.File {
	t.Helper()
	fd, err := syscall.Dup(int(file.Fd()))
	gatewaytest.Must(t, err)
	return os.NewFile(uintptr(fd), file.Name())
}

// store holds sockets as systemd does, and closes them a moment after Remove.
type store struct {
	held    map[string][]*os.File
	calls   []string
	closing sync.WaitGroup
}

func newStore(t *testing.T) *store {
	t.Helper()
	d := &store{held: map[string][]*os.File{}}
	t.Cleanup(func() {
		for name := range d.held {
			d.Remove(name)
		}
		d.closing.Wait()
	})
	return d
}

func (d *store) Add(name string, fd int) {
	own, err := syscall.Dup(fd)
	if err != nil {
		panic(err)
	}
	d.calls = append(d.calls, "add "+name)
	d.held[name] = append(d.held[name], os.NewFile(uintptr(own), name))
}

func (d *store) Remove(name string) {
	d.calls = append(d.calls, "remove "+name)
	leaving := d.held[name]
	delete(d.held, name)
	d.closing.Go(func() {
		<-time.After(50 * time.Millisecond)
		for _, file := range leaving {
			file.Close()
		}
	})
}

func dial(network, at string) (net.Conn, error) {
	c, err := new(net.Dialer).Dial(network, at)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return c, err
}

func refused(t *testing.T, at string) {
	t.Helper()
	if c, err := dial("tcp", at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a connection to %s: %v, %v; want it refused", at, c, err)
	}
}

// Between two daemons clients connect and send datagrams, and the second serves them. So does one
// after a crash, which has what the Store has.
func TestNothingIsRefusedBetweenDaemons(t *testing.T) {
	for name, d := range map[string]*store{"passed on": nil, "stored": newStore(t)} {
		t.Run(name, func(t *testing.T) {
			first := sockets.New(nil)
			if d != nil {
				first = sockets.New(d)
			}
			l, c := openTCP(t, first, "tcp-2222-a", at), openUDP(t, first, "udp-2222-a", at)
			first.Store()
			l.Close()
			c.Close()
			client, err := dial("tcp", at)
			gatewaytest.Must(t, err)
			defer client.Close()
			sender, err := dial("udp", at)
			gatewaytest.Must(t, err)
			defer sender.Close()
			_, err = sender.Write([]byte("between"))
			gatewaytest.Must(t, err)

			second := next(t, first, d)
			l, c = openTCP(t, second, "tcp-2222-a", at), openUDP(t, second, "udp-2222-a", at)
			second.CloseRest("") // of which there is none
			accepted, err := l.Accept()
			if err != nil || accepted.RemoteAddr().String() != client.LocalAddr().String() {
				t.Errorf("accepted %v, %v", accepted, err)
			}
			buf := make([]byte, 16)
			if n, from, err := c.ReadFrom(buf); err != nil || string(buf[:n]) != "between" || from.String() != sender.LocalAddr().String() {
				t.Errorf("read %q of %v, %v", buf[:n], from, err)
			}
			l.Close()
			c.Close()
			second.Remove("tcp-2222-a")
			second.Remove("udp-2222-a")
			refused(t, at)
			if d != nil {
				d.closing.Wait() // the other case has the same addresses
			}
		})
	}
}

// What waits in a socket was meant for what its name stands for, such as a VM. Under another name the
// address gets a new socket, also while the Store still has the old one.
func TestAnotherNameGetsNothing(t *testing.T) {
	d := newStore(t)
	first := sockets.New(d)
	first.Store()
	openTCP(t, first, "tcp-2222-a", at).Close()
	openUDP(t, first, "udp-2222-a", at).Close()
	client, err := dial("tcp", at)
	gatewaytest.Must(t, err)
	sender, err := dial("udp", at)
	gatewaytest.Must(t, err)
	_, err = sender.Write([]byte("to a"))
	gatewaytest.Must(t, err)

	second := next(t, first, d)
	l, c := openTCP(t, second, "tcp-2222-b", at), openUDP(t, second, "udp-2222-b", at)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection to the old name: %v, want a reset", err)
	}
	late, err := dial("tcp", at)
	gatewaytest.Must(t, err)
	if accepted, err := l.Accept(); err != nil || accepted.RemoteAddr().String() != late.LocalAddr().String() {
		t.Errorf("accepted %v, %v", accepted, err)
	}
	sender, err = dial("udp", at)
	gatewaytest.Must(t, err)
	_, err = sender.Write([]byte("to b"))
	gatewaytest.Must(t, err)
	buf := make([]byte, 16)
	if n, _, err := c.ReadFrom(buf); err != nil || string(buf[:n]) != "to b" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
}

// What no service opens is closed, in the Store too, of each kind at its time. Others of its name stay
// in the Store.
func TestTheRestIsClosed(t *testing.T) {
	d := newStore(t)
	first := sockets.New(d)
	first.Store()
	openTCP(t, first, "tcp-a", at).Close()
	openTCP(t, first, "tcp-a", other).Close()
	openTCP(t, first, "tap-a", "127.0.0.1:4444").Close()

	second := next(t, first, d)
	openTCP(t, second, "tcp-a", other)
	d.calls = nil
	second.CloseRest("tcp-", "udp-")
	if diff := cmp.Diff([]string{"remove tcp-a", "add tcp-a"}, d.calls); diff != "" {
		t.Errorf("the store (-want +got):\n%s", diff)
	}
	d.closing.Wait()
	refused(t, at)
	for _, at := range []string{other, "127.0.0.1:4444"} {
		c, err := dial("tcp", at)
		gatewaytest.Must(t, err)
		c.Close()
	}
	if len(d.held["tcp-a"]) != 1 || len(d.held["tap-a"]) != 1 {
		t.Errorf("the store holds %v", d.held)
	}
}

// A removed socket refuses connections at once, while the Store still has it, and its address can be
// opened anew. If the daemon crashes before the Store has closed it, the next one does not use it.
func TestRemove(t *testing.T) {
	d := newStore(t)
	first := sockets.New(d)
	first.Store()
	openTCP(t, first, "tcp-2222-a", at).Close()
	shut := dup(t, d.held["tcp-2222-a"][0])
	openUDP(t, first, "udp-2222-a", at).Close()
	first.Remove("tcp-2222-a")
	refused(t, at)
	first.Remove("udp-2222-a")
	openTCP(t, first, "tcp-2222-a", at).Close()
	openUDP(t, first, "udp-2222-a", at).Close()
	first.Remove("tcp-2222-a")
	first.Remove("udp-2222-a")
	d.closing.Wait()
	d.held = map[string][]*os.File{"tcp-2222-a": {shut}}

	second := next(t, first, d)
	second.Store()
	l := openTCP(t, second, "tcp-2222-a", at)
	c, err := dial("tcp", at)
	gatewaytest.Must(t, err)
	defer c.Close()
	if _, err := l.Accept(); err != nil {
		t.Errorf("accept: %v", err)
	}
	second.CloseRest("tcp-")
	if len(d.held["tcp-2222-a"]) != 1 {
		t.Errorf("the store holds %v", d.held)
	}
}

// A start that fails before Store leaves the Store as it was.
func TestNothingIsStoredBefore(t *testing.T) {
	d := newStore(t)
	s := sockets.New(d)
	openTCP(t, s, "https", at)
	if len(d.calls) > 0 {
		t.Errorf("calls of the store: %q", d.calls)
	}
	s.Store()
	openTCP(t, s, "https", other)
	s.Close()
	if diff := cmp.Diff([]string{"add https", "add https"}, d.calls); diff != "" {
		t.Errorf("calls of the store (-want +got):\n%s", diff)
	}
}

// The Store gets no more than it takes, and taps leave room for others. Inherited ones count, and are
// not stored again.
func TestStoreIsLimited(t *testing.T) {
	d := newStore(t)
	first := sockets.New(d)
	first.Store()
	for i := range sockets.MaxStored {
		openUDP(t, first, fmt.Sprintf("tap-%d", i), "127.0.0.1:0").Close()
	}
	const taps = sockets.MaxStored * 3 / 4
	if len(d.calls) != taps {
		t.Errorf("%d sockets of taps are stored, want %d", len(d.calls), taps)
	}
	second := next(t, first, d)
	second.Store()
	for range sockets.MaxStored {
		openUDP(t, second, "udp-2222-a", "127.0.0.1:0").Close()
	}
	if len(d.calls) != sockets.MaxStored {
		t.Errorf("%d sockets are stored, want %d", len(d.calls), sockets.MaxStored)
	}
	second.CloseRest("tap-0")
	openUDP(t, second, "udp-2222-b", at)
	if got := d.calls[len(d.calls)-2:]; !slices.Equal(got, []string{"remove tap-0", "add udp-2222-b"}) {
		t.Errorf("after one was closed: %q", got)
	}
}
