package quota

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
)

func at(addr string) Visitor {
	return Visitor{Peer: gateway.Peer{Net: netip.PrefixFrom(netip.MustParseAddr(addr), 32)}}
}

// enter makes up to n requests that stay under way, or end at once, and returns how many were
// admitted and why the last was not.
func enter(q *Quota, n int, vm gateway.ID, who Visitor, stay bool) (admitted int, over Over) {
	for range n {
		leave, over := q.Enter(vm, who)
		if over != None {
			return admitted, over
		}
		if admitted++; !stay {
			leave()
		}
	}
	return admitted, None
}

// crowd fills the quota of a VM: its visitors take turns until none gets more. It returns how many
// requests they have under way.
func crowd(q *Quota, vm gateway.ID, visitors int) (held int) {
	for took := 1; took > 0; held += took {
		took = 0
		for n := range visitors {
			got, _ := enter(q, 1, vm, at(netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}).String()), true)
			took += got
		}
	}
	return held
}

func TestCrowdLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = 8192
		q, blog, shop := New(all), gateway.NewID(), gateway.NewID()
		held := crowd(q, blog, 64)
		if held < all*4/10 || held > all/2 {
			t.Errorf("a crowd has %d of %d requests under way", held, all)
		}
		next := at("198.51.100.1")
		if got, over := enter(q, 32, blog, next, true); got != 32 {
			t.Errorf("the next visitor gets %d requests, then is over the limit of %q", got, over)
		}
		if got, over := enter(q, 256, shop, next, true); got != 256 {
			t.Errorf("the other VM's visitor gets %d requests, then is over the limit of %q", got, over)
		}
	})
}

// A crowd of visitors with a request each takes a VM's share, and no more.
func TestCrowdOfOneVMLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = 256
		q, blog, shop := New(all), gateway.NewID(), gateway.NewID()
		if held := crowd(q, blog, 250); held != all/2 {
			t.Errorf("a crowd has %d of %d requests under way", held, all)
		}
		if got, over := enter(q, 1, blog, at("198.51.100.1"), true); got != 0 || over != OfVM {
			t.Errorf("the VM with the crowd: %d, %q", got, over)
		}
		if got, _ := enter(q, 8, shop, at("198.51.100.1"), true); got != 8 {
			t.Errorf("the other VM: %d", got)
		}
	})
}

func TestOneVisitorLeavesRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = 8192
		q, blog, shop := New(all), gateway.NewID(), gateway.NewID()
		greedy := at("203.0.113.1")
		if got, over := enter(q, all, blog, greedy, true); got != all/visitorsShare || over != OfVisitor {
			t.Errorf("a visitor has %d under way, %q", got, over)
		}
		tunnel := at("127.0.0.1")
		if got, over := enter(q, all, blog, tunnel, true); got < all/4 || over != OfVisitor {
			t.Errorf("a tunnel has %d under way, %q", got, over)
		}
		ann := Visitor{Person: "ann@example.org", Peer: greedy.Peer}
		for name, admitted := range map[string]bool{
			"another address":           try(q, blog, at("203.0.113.2")),
			"the other VM":              try(q, shop, greedy),
			"a person, at that address": try(q, blog, ann),
			"a person, in the tunnel":   try(q, blog, Visitor{Person: "bob@example.org", Peer: tunnel.Peer}),
			"another VM":                try(q, blog, Visitor{Peer: gateway.Peer{VM: shop}}),
		} {
			if !admitted {
				t.Errorf("%s is refused", name)
			}
		}
	})
}

func TestRequestsThatEndGiveTheirPlaceBack(t *testing.T) {
	q, blog, who := New(256), gateway.NewID(), at("203.0.113.1")
	for range 1000 {
		leave, over := q.Enter(blog, who)
		if over != None {
			t.Fatal(over)
		}
		leave()
		leave() // counts once
	}
	if q.sum != 0 || len(q.vms) != 0 || len(q.visits) != 0 {
		t.Errorf("left over: %d, %v, %v", q.sum, q.vms, q.visits)
	}
}

func try(q *Quota, vm gateway.ID, who Visitor) bool {
	_, over := q.Enter(vm, who)
	return over == None
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, blog, shop := New(8192), gateway.NewID(), gateway.NewID()
		who := at("203.0.113.1")
		if got, over := enter(q, 1<<20, blog, who, false); got != visitorBurst || over != OfVisitor {
			t.Fatalf("a visitor makes %d requests at once, %q", got, over)
		}
		if !try(q, shop, who) {
			t.Error("over the rate at one VM, a visitor is refused by the other")
		}
		<-time.After(time.Second)
		if got, _ := enter(q, 1<<20, blog, who, false); got != visitorRate {
			t.Errorf("%d requests in the next second", got)
		}
		var over Over
		for n := 2; over != OfVM && n < 250; n++ {
			_, over = enter(q, visitorBurst-1, blog, at(netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}).String()), false)
		}
		if over != OfVM {
			t.Error("a VM has no rate")
		}
		if !try(q, shop, at("198.51.100.1")) {
			t.Error("the other VM is refused")
		}
		if got, over := enter(q, 4*visitorBurst, blog, at("127.0.0.1"), false); got != 4*visitorBurst {
			t.Errorf("loopback has a rate: %d, %q", got, over)
		}
	})
}
