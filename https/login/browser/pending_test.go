package browser

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
)

func peer(i int) gateway.Peer {
	return gateway.PeerAt(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}))
}

func TestPendingIsTakenOnceInItsTime(t *testing.T) {
	now := time.Now()
	p := NewPending[string](time.Minute, func() time.Time { return now })
	for _, key := range []string{"a", "b"} {
		if err := p.Add(key, peer(1), "of "+key); err != nil {
			t.Fatal(err)
		}
	}
	var taken atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if got, ok := p.Take("a"); ok && got == "of a" {
				taken.Add(1)
			}
		})
	}
	all.Wait()
	if taken.Load() != 1 {
		t.Errorf("taken %d times", taken.Load())
	}
	now = now.Add(time.Minute)
	if _, ok := p.Take("b"); ok {
		t.Error("taken after its end")
	}
}

// One peer is limited, finished or not, until what it began expires. Others are not.
func TestPendingIsLimitedByPeer(t *testing.T) {
	now := time.Now()
	p := NewPending[int](time.Minute, func() time.Time { return now })
	for i := range maxOfPeer {
		key := fmt.Sprint(i)
		if err := p.Add(key, peer(1), i); err != nil {
			t.Fatal(err)
		}
		p.Take(key)
	}
	if err := p.Add("more", peer(1), 0); gateway.KindOf(err) != gateway.KindUnavailable {
		t.Errorf("one more: %v", err)
	}
	if err := p.Add("other", peer(2), 0); err != nil {
		t.Errorf("another peer: %v", err)
	}
	now = now.Add(time.Minute)
	if err := p.Add("later", peer(1), 0); err != nil {
		t.Errorf("later: %v", err)
	}
}

// A crowd cannot push out those who begin little, and what is kept is bounded.
func TestPendingIsBoundedInAll(t *testing.T) {
	p := NewPending[int](time.Minute, time.Now)
	tunnel := gateway.PeerAt(netip.MustParseAddr("127.0.0.1")) // stands for many
	if err := p.Add("ann", peer(0), 7); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxPending {
		if err := p.Add(fmt.Sprint("t", i), tunnel, i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxPending / 2 {
		if err := p.Add(fmt.Sprint("p", i), peer(i), i); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.byKey) > maxPending || p.order.Len() > maxPending || len(p.peers) > maxPending {
		t.Errorf("%d, %d of %d peers", len(p.byKey), p.order.Len(), len(p.peers))
	}
	if got, ok := p.Take("ann"); !ok || got != 7 {
		t.Error("the first one was pushed out")
	}
}
