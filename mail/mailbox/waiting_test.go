package mailbox

import (
	"slices"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// The places of delivery are the same after the mailbox is opened again.
func TestPlacesOfDelivery(t *testing.T) {
	dir, vm := t.TempDir(), gateway.NewID()
	s := open(t, dir)
	for range 7 {
		mustPut(t, s, "text", vm)
	}
	b := box(t, s, vm)
	gatewaytest.Must(t, b.Delivered(1))
	for uid := uint32(2); uid <= 4; uid++ {
		gatewaytest.Must(t, b.Park(uid))
	}
	gatewaytest.Must(t, b.Unpark(3))
	gatewaytest.Must(t, b.SetFlags([]uint32{2}, Seen, AllFlags)) // keeps it parked
	gatewaytest.Must(t, b.Expunge([]uint32{6}))
	for range 2 {
		var after []uint32
		for e, ok := b.PendingAfter(0); ok; e, ok = b.PendingAfter(e.UID) {
			after = append(after, e.UID)
		}
		for name, row := range map[string]struct{ got, want []uint32 }{
			"pending":          {after, []uint32{5, 7}},
			"parked":           {uidsOf(b.Parked(10)), []uint32{2, 4}},
			"the first parked": {uidsOf(b.Parked(1)), []uint32{2}},
			"passed":           {uidsOf(b.Passed(2)), []uint32{3, 4}},
			"all passed":       {uidsOf(b.Passed(10)), []uint32{1, 2, 3, 4}},
		} {
			if !slices.Equal(row.got, row.want) {
				t.Errorf("%s: %v, want %v", name, row.got, row.want)
			}
		}
		list, err := b.List(0)
		gatewaytest.Must(t, err)
		for _, m := range list {
			if want := m.UID == 1 || m.UID == 3; m.Delivered != want {
				t.Errorf("message %d: delivered is %v", m.UID, m.Delivered)
			}
		}
		if n, oldest := b.Waiting(); n != 4 || !oldest.Equal(list[4].Received) {
			t.Errorf("%d wait, the oldest since %v: %+v", n, oldest, list)
		}
		s.Close()
		s = open(t, dir)
		b = box(t, s, vm)
	}
}

func uidsOf(list []Entry) (all []uint32) {
	for _, e := range list {
		all = append(all, e.UID)
	}
	return all
}
