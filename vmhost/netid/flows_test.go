package netid

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"lodge/gateway"
)

// The removal of alice ended between her tap and her flows, and her address has an heir. Her flows end
// before anything of the heir exists, so that each later step may fail, and no packet of theirs
// reaches the heir.
func TestFlowsEndBeforeAnHeirExists(t *testing.T) {
	for _, tt := range []struct {
		name   string
		broken func(t *testing.T, f func()) // lets a step after the flows fail
		up     func(ctx context.Context, n *Net, bob, heir gateway.Identity) error
	}{
		{"Up", withoutTaps, func(ctx context.Context, n *Net, _, heir gateway.Identity) error { return n.Up(ctx, heir) }},
		{"Apply", withoutNft, func(ctx context.Context, n *Net, bob, heir gateway.Identity) error {
			n.loaded = loaded{} // as at the start of a daemon
			return n.Apply(ctx, []gateway.Identity{bob, heir})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			peer := l.openFlow(t)
			l.listeners.Close(l.a.ID)
			must(t, netlink.LinkDel(link(t, l.a.Tap())))
			l.net = New(l.net.config)
			fatal(t, l.net.Apply(t.Context(), []gateway.Identity{l.b}))
			if flows(t, l.a.Addr) == 0 {
				t.Fatal("no flow of alice is left over")
			}
			heir := vm(3, l.a.Name, l.a.Addr.String())
			tt.broken(t, func() {
				if err := tt.up(t.Context(), l.net, l.b, heir); err == nil {
					t.Error("nothing has failed")
				}
			})
			if got := flows(t, l.a.Addr); got > 0 {
				t.Errorf("%d flows of alice are left after the first step", got)
			}
			fatal(t, tt.up(t.Context(), l.net, l.b, heir))
			l.a, l.alice = heir, newGuest(t, heir)
			fatal(t, l.listeners.Open(t.Context(), heir))
			l.listen(t, "alice", l.alice, closedHost)
			_, err := peer.Write([]byte("attack"))
			fatal(t, err)
			l.follow(t)
			l.settle(t)
			if got := l.alice.oddFrames(); got > 0 {
				t.Errorf("%d packets of alice's flow have reached the heir", got)
			}
		})
	}
}

// openFlow has alice connect to the world, and returns the other end.
func (l *lab) openFlow(t *testing.T) (peer net.Conn) {
	t.Helper()
	var server net.Listener
	l.outside.do(func() {
		var err error
		server, err = new(net.ListenConfig).Listen(t.Context(), "tcp", ":7777")
		must(t, err)
	})
	t.Cleanup(func() { must(t, server.Close()) })
	c, err := l.alice.dial("tcp", internet.Addr().String()+":7777", net.Dialer{Timeout: patience})
	fatal(t, err)
	t.Cleanup(func() { _ = c.Close() }) // its network is gone
	peer, err = server.Accept()
	fatal(t, err)
	t.Cleanup(func() { _ = peer.Close() }) // its peer is gone
	return peer
}

// follow returns when all that the outside has sent has arrived at the host.
func (l *lab) follow(t *testing.T) {
	t.Helper()
	c, err := l.outside.dial("udp", net.JoinHostPort(uplink.Addr().String(), closedHost[1:]), net.Dialer{})
	fatal(t, err)
	defer c.Close()
	_, err = c.Write([]byte("last"))
	fatal(t, err)
	deadline := time.After(patience)
	for {
		select {
		case h := <-l.received:
			if h == (arrival{"host", "last"}) {
				return
			}
		case <-deadline:
			t.Fatal("the outside does not reach the host")
		}
	}
}

// withoutTaps calls f while no tap can be made.
func withoutTaps(t *testing.T, f func()) {
	t.Helper()
	fatal(t, syscall.Mount("/dev/null", "/dev/net/tun", "", syscall.MS_BIND, ""))
	defer func() { fatal(t, syscall.Unmount("/dev/net/tun", 0)) }()
	f()
}

// withoutNft calls f while the program nft is absent.
func withoutNft(t *testing.T, f func()) {
	t.Helper()
	path := os.Getenv("PATH")
	t.Setenv("PATH", "")
	defer t.Setenv("PATH", path)
	f()
}
