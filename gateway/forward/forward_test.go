package forward

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// Both protocols reach the guest through its tap, and a half-close passes.
func TestThroughTheTap(t *testing.T) {
	r := newRig(t)
	blog := r.vm(t, "blog")
	inGuest(t, blog, func() {
		echoTCP(t, "blog ", listenTCP(t, blog.Addr.String()+":22"))
		echoUDP(t, listenUDP(t, blog.Addr.String()+":53"))
	})
	r.add(t, blog, "2222:22/tcp")
	r.add(t, blog, "2222:53/udp")
	for _, at := range []string{"192.0.2.1:2222", "127.0.0.1:2222"} {
		c := dial(t, "tcp", "", at)
		text := strings.Repeat("text ", 100_000)
		go func() {
			_, _ = io.WriteString(c, text)    // what comes back is compared
			_ = c.(*net.TCPConn).CloseWrite() // as above
		}()
		if got, err := io.ReadAll(c); err != nil || string(got) != "blog "+text {
			t.Errorf("tcp at %s: %d bytes, %v", at, len(got), err)
		}
		one, other := dial(t, "udp", "", at), dial(t, "udp", "", at)
		for _, text := range []string{"small", "", strings.Repeat("large", 12_000)} {
			ask(t, one, "one"+text)
			ask(t, other, text)
			ask(t, one, text)
		}
	}
	r.add(t, blog, "3333:23/tcp") // nothing listens at 23
	if err := closed("127.0.0.1", "127.0.0.1:3333"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port at which nothing listens: %v, want a reset", err)
	}
}

// ask sends a datagram to an echo and checks the answer.
func ask(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := c.Write([]byte(text))
	gatewaytest.Must(t, err)
	buf := make([]byte, maxDatagram)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != text {
		t.Errorf("sent %d bytes, got %d, %v", len(text), n, err)
	}
}

func TestPortsThatCannotBeForwarded(t *testing.T) {
	r := newRig(t, toLoopback)
	blog, shop := r.vm(t, "blog"), r.vm(t, "shop")
	r.add(t, blog, "2222:22/tcp")
	listenTCP(t, "192.0.2.1:5432")
	listenUDP(t, "127.0.0.1:5353")
	removed := r.vm(t, "old")
	r.change(t, removed, func(m *gateway.VM) { m.Desired = gateway.Removed })
	for _, tt := range []struct {
		vm   gateway.VM
		text string
		kind gateway.Kind
		want string
	}{
		{blog, "2222:80/tcp", gateway.KindTaken, "port 2222/tcp of the host leads to port 22 of blog already"},
		{shop, "127.0.0.1:2222:80/tcp", gateway.KindTaken, "port 2222/tcp of the host leads to port 22 of blog already"},
		{shop, "443:80/tcp", gateway.KindConflict, "port 443/tcp of the host is lodged's own (https_port)"},
		{shop, "127.0.0.1:443:80/tcp", gateway.KindConflict, "port 443/tcp of the host is lodged's own (https_port)"},
		{shop, "5432:80/tcp", gateway.KindInternal, "192.0.2.1:5432: "},
		{shop, "5353:80/udp", gateway.KindInternal, "127.0.0.1:5353: "},
		{shop, "198.51.100.1:4444:80/tcp", gateway.KindInternal, "198.51.100.1:4444: "},
		{removed, "4444:80/tcp", gateway.KindNotFound, "the VM is removed"},
	} {
		f, err := gateway.ParseForward(tt.text)
		gatewaytest.Must(t, err)
		f.VM = tt.vm.ID
		_, err = r.Add(t.Context(), f)
		if gateway.KindOf(err) != tt.kind || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %v, %q", tt.text, gateway.KindOf(err), err, tt.kind, tt.want)
		}
	}
	all, err := r.Claims.All(t.Context())
	if err != nil || len(all) != 1 || len(r.List()) != 1 {
		t.Errorf("recorded %v, %v; listed %v", all, err, r.List())
	}
	r.add(t, shop, "2222:22/udp")           // another protocol
	r.add(t, shop, "192.0.2.1:5353:53/udp") // an address where it is free
	listenTCP(t, "127.0.0.1:5432")          // what could not be opened everywhere is open nowhere
}

// A start opens the recorded ports; where one is taken, List has the reason until it is open.
func TestStart(t *testing.T) {
	r := newRig(t, toLoopback)
	blog, gone := r.vm(t, "blog"), r.vm(t, "gone")
	r.add(t, blog, "2222:22/tcp")
	r.add(t, blog, "2222:53/udp")
	r.add(t, blog, "3333:33/tcp")
	r.add(t, gone, "4444:44/tcp")
	r.stop()
	db := &rig{path: r.path}
	db.start(t)
	gatewaytest.Must(t, db.dir.Delete(t.Context(), gone.ID))
	gatewaytest.Must(t, db.Claims.Claim(t.Context(), gateway.Forward{ // as a crash amid the removal leaves it
		HostPort: gateway.HostPort{Protocol: gateway.TCP, Port: 4444}, VM: gone.ID, VMPort: 44,
	}))
	db.stop()

	taken := listenTCP(t, "192.0.2.1:3333")
	echoTCP(t, "22", listenTCP(t, "127.0.0.1:22"))
	echoTCP(t, "33", listenTCP(t, "127.0.0.1:33"))
	r.start(t, toLoopback)
	states := func() (all []string) {
		for _, f := range r.List() {
			state := f.String()
			if f.Err != nil {
				state += " " + f.Err.Error()
			}
			all = append(all, state)
		}
		return all
	}
	want := []string{"2222/tcp", "2222/udp", "3333/tcp 192.0.2.1:3333: listen tcp 192.0.2.1:3333: bind: address already in use"}
	if diff := cmp.Diff(want, states()); diff != "" {
		t.Errorf("after the start (-want +got):\n%s", diff)
	}
	greets(t, "192.0.2.1:2222", "22")
	greets(t, "127.0.0.1:3333", "33") // the other address is open
	_ = taken.Close()
	r.reopen(t.Context())
	want[2] = "3333/tcp"
	if diff := cmp.Diff(want, states()); diff != "" {
		t.Errorf("after the port is free (-want +got):\n%s", diff)
	}
	greets(t, "192.0.2.1:3333", "33")
	all, err := r.Claims.All(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("recorded %v, %v; want none of the VM that is gone", all, err)
	}
}

func greets(t *testing.T, at, want string) net.Conn {
	t.Helper()
	c := dial(t, "tcp", "", at)
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Errorf("%s: %q, %v; want %q", at, buf, err, want)
	}
	return c
}

// What is open ends with the VM's run, with the VM and with the forward. An ordinary stop leaves it
// to the guest. While the VM is off, connections are closed at once.
func TestConnectionsFollowTheVM(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(t *testing.T, r *rig, vm gateway.VM, f gateway.Forward)
		stays  bool // the open connection
		serves bool // a new one
	}{
		"stop":       {update(func(m *gateway.VM) { m.Desired = gateway.Stopped }), true, false},
		"force stop": {update(func(m *gateway.VM) { m.Desired, m.ForceStop = gateway.Stopped, true }), false, false},
		"restart":    {update(func(m *gateway.VM) { m.Incarnation++ }), false, true},
		"remove VM":  {update(func(m *gateway.VM) { m.Desired = gateway.Removed }), false, false},
		"share":      {update(func(m *gateway.VM) { m.Shares = m.WithShare(gateway.Share{Port: 80, Visibility: gateway.Public}) }), true, true},
		"remove": {func(t *testing.T, r *rig, _ gateway.VM, f gateway.Forward) {
			t.Helper()
			gatewaytest.Must(t, r.Remove(t.Context(), f.HostPort))
			if err := r.Remove(t.Context(), f.HostPort); gateway.KindOf(err) != gateway.KindNotFound {
				t.Errorf("a second time: %v", err)
			}
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, toLoopback)
			echoTCP(t, "22", listenTCP(t, "127.0.0.1:22"))
			echoUDP(t, listenUDP(t, "127.0.0.1:22"))
			blog, other := r.vm(t, "blog"), r.vm(t, "other")
			f := r.add(t, blog, "2222:22/tcp")
			r.add(t, blog, "2222:22/udp")
			r.add(t, other, "3333:22/tcp")
			c, flow, others := greets(t, "127.0.0.1:2222", "22"), dial(t, "udp", "", "127.0.0.1:2222"), greets(t, "127.0.0.1:3333", "22")
			ask(t, flow, "before")
			tt.change(t, r, blog, f)
			ask(t, others, "still here")
			if tt.stays {
				ask(t, c, "still here")
				ask(t, flow, "still here")
			} else if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the open connection: %v, want a reset", err)
			}
			if tt.serves {
				greets(t, "127.0.0.1:2222", "22")
				return
			}
			if err := closed("127.0.0.1", "127.0.0.1:2222"); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a new connection: %v, want it closed", err)
			}
		})
	}
}

func update(change func(*gateway.VM)) func(*testing.T, *rig, gateway.VM, gateway.Forward) {
	return func(t *testing.T, r *rig, vm gateway.VM, _ gateway.Forward) {
		t.Helper()
		r.change(t, vm, change)
	}
}

// RemoveVM leaves the ports free for the next VM.
func TestRemoveVM(t *testing.T) {
	r := newRig(t, toLoopback)
	blog, shop := r.vm(t, "blog"), r.vm(t, "shop")
	r.add(t, blog, "2222:22/tcp")
	r.add(t, blog, "2222:22/udp")
	r.add(t, shop, "3333:22/tcp")
	r.change(t, blog, func(m *gateway.VM) { m.Desired = gateway.Removed })
	gatewaytest.Must(t, r.RemoveVM(t.Context(), blog.ID))
	r.add(t, shop, "2222:22/tcp")
	all, err := r.Claims.All(t.Context())
	if err != nil || len(all) != 2 || all[0].VM != shop.ID || all[1].VM != shop.ID {
		t.Errorf("recorded %v, %v", all, err)
	}
}

// One client leaves room for others. On loopback, where tunnels end, each connection counts alone.
func TestOneClientLeavesRoom(t *testing.T) {
	r := newRig(t, toLoopback)
	echoTCP(t, "22", listenTCP(t, "127.0.0.1:22"))
	r.add(t, r.vm(t, "blog"), "2222:22/tcp")
	for range maxConnsPerPeer {
		c := dial(t, "tcp", "192.0.2.2", "192.0.2.1:2222")
		_, err := io.ReadFull(c, make([]byte, 2))
		gatewaytest.Must(t, err)
	}
	if err := closed("192.0.2.2", "192.0.2.1:2222"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("one more than the limit: %v, want a reset", err)
	}
	other := dial(t, "tcp", "192.0.2.3", "192.0.2.1:2222")
	if _, err := io.ReadFull(other, make([]byte, 2)); err != nil {
		t.Errorf("another client: %v", err)
	}
	for range maxConnsPerPeer + 1 {
		greets(t, "127.0.0.1:2222", "22")
	}
	p, _ := r.port(gateway.HostPort{Protocol: gateway.TCP, Port: 2222})
	r.change(t, gateway.VM{Identity: gateway.Identity{ID: p.VM}}, func(m *gateway.VM) { m.Incarnation++ })
	gatewaytest.WaitFor(t, "all places are given back", func() bool {
		_, all := p.clients.Held(clientOf(netip.AddrPort{}))
		_, sum := r.streams.Held(p.HostPort)
		return all == 0 && sum == 0
	})
}
