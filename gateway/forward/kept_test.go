package forward

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sockets"
)

// A client that connects between two daemons waits for the second, and so does a datagram, unless the
// forward was removed or leads to another VM now.
func TestPortsOutliveTheDaemon(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(t *testing.T, r *rig, f gateway.Forward) // of the records, while no daemon runs
		served bool                                          // what waits
		open   bool                                          // the port, afterwards
	}{
		"unchanged": {func(*testing.T, *rig, gateway.Forward) {}, true, true},
		"removed":   {release, false, false},
		"another VM": {func(t *testing.T, r *rig, f gateway.Forward) {
			t.Helper()
			release(t, r, f)
			other, _ := r.dir.ByName("other")
			f.VM = other.ID
			gatewaytest.Must(t, r.Claims.Claim(t.Context(), f))
		}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			kept := sockets.New(nil)
			keeps := func(c *Config) { c.Sockets = kept }
			r := newRig(t, toLoopback, keeps)
			echoTCP(t, "22", listenTCP(t, "127.0.0.1:22"))
			echoUDP(t, listenUDP(t, "127.0.0.1:22"))
			blog := r.vm(t, "blog")
			r.vm(t, "other")
			stream, datagrams := r.add(t, blog, "2222:22/tcp"), r.add(t, blog, "2222:22/udp")
			r.stop()
			c, flow := dial(t, "tcp", "", "127.0.0.1:2222"), dial(t, "udp", "", "127.0.0.1:2222")
			_, err := flow.Write([]byte("between"))
			gatewaytest.Must(t, err)

			db := &rig{path: r.path}
			db.start(t)
			tt.change(t, db, stream)
			tt.change(t, db, datagrams)
			db.stop()
			kept = gatewaytest.PassOn(t, kept)
			r.start(t, toLoopback, keeps)
			answer := make([]byte, 16)
			if n, err := io.ReadFull(c, answer[:2]); (err == nil) != tt.served {
				t.Errorf("the connection that waited reads %q, %v", answer[:n], err)
			}
			if tt.served {
				n, err := flow.Read(answer)
				if err != nil || string(answer[:n]) != "between" {
					t.Errorf("the datagram that waited is answered %q, %v", answer[:n], err)
				}
			}
			if tt.open {
				greets(t, "127.0.0.1:2222", "22")
				greets(t, "192.0.2.1:2222", "22")
				ask(t, dial(t, "udp", "", "127.0.0.1:2222"), "later")
			} else if err := closed("127.0.0.1", "127.0.0.1:2222"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a removed forward: %v, want it refused", err)
			}
		})
	}
}

func release(t *testing.T, r *rig, f gateway.Forward) {
	t.Helper()
	gatewaytest.Must(t, r.Claims.Release(t.Context(), f.HostPort))
}

// A forward that could not be added or was removed leaves no socket to the next daemon.
func TestClosedPortsAreNotKept(t *testing.T) {
	kept := sockets.New(nil)
	r := newRig(t, toLoopback, func(c *Config) { c.Sockets = kept })
	blog, shop := r.vm(t, "blog"), r.vm(t, "shop")
	f := r.add(t, blog, "2222:22/tcp")
	r.add(t, shop, "3333:22/udp")
	listenTCP(t, "127.0.0.1:4444")
	if _, err := r.Add(t.Context(), gateway.Forward{HostPort: gateway.HostPort{Protocol: gateway.TCP, Port: 4444}, VM: shop.ID, VMPort: 22}); err == nil {
		t.Error("a taken port was added")
	}
	count := func() (n int) {
		kept.Each(func(string, int) { n++ })
		return n
	}
	if count() != 4 { // two addresses each
		t.Errorf("%d sockets are kept, want 4", count())
	}
	gatewaytest.Must(t, r.Remove(t.Context(), f.HostPort))
	if err := closed("127.0.0.1", "127.0.0.1:2222"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a removed forward: %v, want it refused", err)
	}
	r.change(t, shop, func(m *gateway.VM) { m.Desired = gateway.Removed })
	gatewaytest.Must(t, r.RemoveVM(t.Context(), shop.ID))
	if count() != 0 {
		t.Errorf("%d sockets are kept, want none", count())
	}
}
