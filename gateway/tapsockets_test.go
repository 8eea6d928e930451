package gateway_test

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sockets"
)

// nextDaemon opens listeners for some guests over the sockets of d, which stops. The guest of between
// connects while no daemon runs; the result is its connection.
func nextDaemon(t *testing.T, d *gateway.TapListeners, between *guest, guests ...*guest) (*gateway.TapListeners, net.Conn) {
	t.Helper()
	d.Shutdown()
	waiting, err := between.dial(net.Dialer{}, "tcp", webPort)
	fatal(t, err)
	t.Cleanup(func() { _ = waiting.Close() }) // the test may have done it
	return openKept(t, gatewaytest.PassOn(t, d.Sockets), guests...), waiting
}

func openKept(t *testing.T, kept *sockets.Set, guests ...*guest) *gateway.TapListeners {
	t.Helper()
	d := gateway.NewTapListeners()
	d.Sockets = kept
	d.Packets(dnsPort, echoName)
	go sayName(d.Listener(webPort))
	for _, g := range guests {
		fatal(t, d.Open(t.Context(), g.vm))
	}
	d.CloseRest()
	t.Cleanup(d.Shutdown)
	return d
}

// A guest's connection waits for the next daemon, which serves it as that VM's. It is never served as
// another's: neither on a new tap of the old name, nor when another VM has the tap, nor once the VM
// was removed.
func TestListenersOutliveTheDaemon(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(a *guest) // before the next daemon
		stays  bool
		want   string // what the waiting connection gets
	}{
		"same VM":    {func(*guest) {}, true, "alice"},
		"renamed":    {func(a *guest) { a.vm.Name = "carol" }, true, "carol"},
		"another VM": {func(a *guest) { a.vm.ID, a.vm.Name = gateway.NewID(), "mallory" }, true, ""},
		"removed":    {func(*guest) {}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := twoGuests(t)
			first := openKept(t, sockets.New(nil), a, b)
			askAll(t, a, b)
			guests := []*guest{b}
			if tt.change(a); tt.stays {
				guests = append(guests, a)
			}
			_, waiting := nextDaemon(t, first, a, guests...)
			if got, err := readName(waiting); got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("what waited gets the name %q, %v; want %q", got, err, tt.want)
			}
			askAll(t, guests...)
			if !tt.stays {
				if _, err := a.ask("tcp", webPort); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a removed VM: %v, want refused", err)
				}
			}
		})
	}
}

// The sockets of a tap that was made anew are not used: they are bound to the index of the old one.
func TestListenersOfAnOldTapAreClosed(t *testing.T) {
	a, b := twoGuests(t)
	first := openKept(t, sockets.New(nil), a, b)
	first.Shutdown()
	a.unplug(t)
	a.plug(t)
	second, waiting := nextDaemon(t, first, b, a, b)
	if name, err := readName(waiting); name != "bob" || err != nil {
		t.Errorf("bob gets the name %q, %v", name, err)
	}
	askAll(t, a, b)
	index := map[int]int{}
	second.Sockets.Each(func(_ string, fd int) {
		device, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
		fatal(t, err)
		index[device]++
	})
	for _, g := range []*guest{a, b} {
		tap, err := net.InterfaceByName(g.vm.Tap())
		fatal(t, err)
		if index[tap.Index] != 2 || len(index) != 2 {
			t.Errorf("sockets by interface: %v, want 2 at %d (%s)", index, tap.Index, g.vm.Name)
		}
	}
}

// Close and a failed Open leave no socket to the next daemon.
func TestClosedListenersAreNotKept(t *testing.T) {
	a, b := twoGuests(t)
	d := openKept(t, sockets.New(nil), a)
	kept := func() (n int) {
		d.Sockets.Each(func(string, int) { n++ })
		return n
	}
	if kept() != 2 {
		t.Errorf("%d sockets are kept, want 2", kept())
	}
	squatting := squatter(t, "udp4", "169.254.169.254:53", b.vm.Tap())
	defer squatting.Close()
	if err := d.Open(t.Context(), b.vm); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("open: %v", err)
	}
	d.Close(a.vm.ID)
	if kept() != 0 {
		t.Errorf("%d sockets are kept, want none", kept())
	}
}
