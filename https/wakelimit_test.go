package https

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// One peer starts two VMs at once at most, so that it does not take all starts; all other peers have
// theirs. Through loopback each VM counts by itself.
func TestOnePeerWakesFew(t *testing.T) {
	var vms []gateway.VM
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		vms = append(vms, gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Stopped, WakeOnRequest: true})
	}
	woken := make(chan gateway.ID)
	k := newWaker(Config{
		Directory: gatewaytest.NewDirectory(t, &gatewaytest.Records{}, vms...), Logger: slog.New(slog.DiscardHandler),
		Wake: func(ctx context.Context, id gateway.ID) error {
			woken <- id
			<-ctx.Done()
			return ctx.Err()
		},
	}, nil)
	t.Cleanup(k.stop)
	hold := func(n int, remote string) <-chan error {
		ended := make(chan error, 1)
		go func() {
			ended <- k.hold(t.Context(), vms[n].ID, gateway.DefaultPort, gateway.PeerAt(netip.MustParseAddr(remote)))
		}()
		return ended
	}
	for n, remote := range map[int]string{0: "192.0.2.1", 1: "192.0.2.1", 3: "192.0.2.2", 4: "127.0.0.1", 5: "127.0.0.1"} {
		hold(n, remote)
		if id := <-woken; id != vms[n].ID {
			t.Fatalf("woke %s", id)
		}
	}
	select {
	case err := <-hold(2, "192.0.2.1"):
		if !errors.Is(err, errStarting) {
			t.Errorf("the third VM of one peer: %v", err)
		}
	case <-woken:
		t.Error("one peer woke a third VM")
	}
}

// The record decides, not what the request has seen before: a VM that is being removed, or whose
// setting is off by now, is not woken.
func TestWakeReadsTheRecordAgain(t *testing.T) {
	removed := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "removed"}, Desired: gateway.Removed, WakeOnRequest: true}
	unset := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "unset"}, Desired: gateway.Stopped}
	k := newWaker(Config{
		Directory: gatewaytest.NewDirectory(t, &gatewaytest.Records{}, removed, unset), Logger: slog.New(slog.DiscardHandler),
		Wake: func(context.Context, gateway.ID) error {
			t.Error("it was woken")
			return nil
		},
	}, nil)
	t.Cleanup(k.stop)
	for _, id := range []gateway.ID{removed.ID, unset.ID, gateway.NewID()} {
		if err := k.hold(t.Context(), id, gateway.DefaultPort, gateway.Peer{}); !errors.Is(err, errAsleep) {
			t.Errorf("got %v", err)
		}
	}
}
