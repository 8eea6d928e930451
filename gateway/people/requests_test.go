package people_test

import (
	"fmt"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
)

// asked is a Requests in a real file, with a clock.
type asked struct {
	*people.Requests
	t    *testing.T
	file string
	now  time.Time
}

func newAsked(t *testing.T) *asked {
	t.Helper()
	a := &asked{t: t, file: file(t), now: time.Unix(1_800_000_000, 0)}
	a.open()
	return a
}

func (a *asked) open() {
	a.t.Helper()
	_, db := opened(a.t, a.file)
	var err error
	a.Requests, err = people.OpenRequests(a.t.Context(), db.Shared(), func() time.Time { return a.now })
	gatewaytest.Must(a.t, err)
}

func (a *asked) add(q gateway.AccessRequest) gateway.AccessRequest {
	a.t.Helper()
	got, _, err := a.Add(a.t.Context(), q)
	gatewaytest.Must(a.t, err)
	return got
}

func (a *asked) refuses(q gateway.AccessRequest, want gateway.Kind) {
	a.t.Helper()
	if _, _, err := a.Add(a.t.Context(), q); gateway.KindOf(err) != want {
		a.t.Errorf("%+v: %v, want %s", q, err, want)
	}
}

func request(vm byte, person int, host string) gateway.AccessRequest {
	q := gateway.AccessRequest{Port: 8000, Host: host, Person: gateway.Principal(person), Address: fmt.Sprintf("p%d@example.com", person), From: "192.0.2.1"}
	if vm > 0 {
		q.VM = gateway.ID{vm}
	}
	return q
}

func TestRequestsAreKept(t *testing.T) {
	a := newAsked(t)
	first := a.add(request(1, 7, "blog"))
	a.now = a.now.Add(time.Hour)
	second := a.add(request(2, 7, "shop"))
	a.now = a.now.Add(time.Second)
	again := a.add(request(1, 7, "blog"))
	if again.ID != first.ID || !again.Until.After(first.Until) || len(first.ID) != 16 {
		t.Errorf("made again: %+v, before %+v", again, first)
	}
	if same, added, err := a.Add(t.Context(), request(1, 7, "blog")); err != nil || added || same != again {
		t.Errorf("made again at once: %+v, %t, %v", same, added, err)
	}
	a.add(request(0, 7, "nope"))
	for range 2 { // the second time after a restart
		all := a.All()
		if len(all) != 2 || all[0] != second || all[1] != again {
			t.Errorf("the requests are %+v", all)
		}
		a.open()
	}
	gatewaytest.Must(t, a.Remove(t.Context(), func(q gateway.AccessRequest) bool { return q.VM == gateway.ID{1} }))
	a.open()
	if _, ok := a.ByID(first.ID); ok || len(a.All()) != 1 {
		t.Errorf("after a removal: %+v", a.All())
	}
	a.now = second.Until
	if len(a.All()) != 0 {
		t.Errorf("after their time: %+v", a.All())
	}
}

// A request that was denied counts like one for a name that no VM has, and is the same
// one when it is made again.
func TestHiddenRequestsCount(t *testing.T) {
	a := newAsked(t)
	hidden := a.add(request(1, 7, "blog"))
	gatewaytest.Must(t, a.Hide(t.Context(), func(q gateway.AccessRequest) bool { return q.VM == gateway.ID{1} }))
	for range 2 { // the second time after a restart
		if all := a.All(); len(all) != 0 {
			t.Errorf("seen: %+v", all)
		}
		if again, added, err := a.Add(t.Context(), request(1, 7, "blog")); err != nil || added || again.ID != hidden.ID {
			t.Errorf("made again: %+v, %t, %v", again, added, err)
		}
		a.open()
	}
	for i := range gateway.MaxAccessRequestsOfPerson - 1 {
		a.add(request(0, 7, fmt.Sprint("host", i)))
	}
	a.refuses(request(1, 7, "more"), gateway.KindConflict)
}

// A person's limit is the same whether VMs have the names or not.
func TestRequestsOfOnePersonAreLimited(t *testing.T) {
	a := newAsked(t)
	for vm := range byte(2) {
		person := int(vm) + 1
		for i := range gateway.MaxAccessRequestsOfPerson {
			a.add(request(vm, person, fmt.Sprint("host", i)))
		}
		a.refuses(request(vm, person, "more"), gateway.KindConflict)
		a.add(request(vm, person, "host0"))
	}
	a.add(request(1, 9, "more"))
	a.now = a.now.Add(gateway.AccessRequestLife)
	a.add(request(1, 2, "more"))
}

func TestUnprovenRequestsAreLimited(t *testing.T) {
	a := newAsked(t)
	for i := range gateway.MaxUnprovenRequests {
		q := request(byte(1+i%5), 0, fmt.Sprint("host", i))
		q.From = fmt.Sprintf("192.0.2.%d", i/gateway.MaxUnprovenRequestsOfPeer)
		a.add(q)
	}
	q := request(1, 0, "more")
	q.From = "192.0.2.0"
	a.refuses(q, gateway.KindConflict)
	q.From = "192.0.2.200"
	a.refuses(q, gateway.KindUnavailable)
	a.add(request(1, 1, "proven"))
}

// Of one VM the oldest request makes room, and an unproven one for a proven one alone.
func TestRequestsForOneVMDisplaceEachOther(t *testing.T) {
	a := newAsked(t)
	shown := func() (ids []string) {
		for _, q := range a.All() {
			ids = append(ids, q.ID)
		}
		return ids
	}
	first := a.add(request(1, 1, "h"))
	unproven := a.add(request(1, 0, "h"))
	for person := range gateway.MaxAccessRequestsOfVM - 2 {
		a.add(request(1, person+2, "h"))
	}
	a.add(request(1, 100, "h"))
	if ids := shown(); len(ids) != gateway.MaxAccessRequestsOfVM || ids[0] != first.ID || ids[1] == unproven.ID {
		t.Errorf("the unproven one did not make room: %d, %v", len(ids), ids[:2])
	}
	a.add(request(1, 101, "h"))
	if ids := shown(); len(ids) != gateway.MaxAccessRequestsOfVM || ids[0] == first.ID {
		t.Errorf("the oldest did not make room: %d", len(ids))
	}
	before := shown()
	a.add(request(1, 0, "other"))
	if ids := shown(); fmt.Sprint(ids) != fmt.Sprint(before) {
		t.Error("an unproven request displaced a proven one")
	}
}

func TestAllRequestsAreLimited(t *testing.T) {
	a := newAsked(t)
	for i := range gateway.MaxAccessRequests {
		a.add(request(byte(1+i%100), 1+i/gateway.MaxAccessRequestsOfPerson, fmt.Sprint("host", i)))
	}
	a.refuses(request(1, 5000, "more"), gateway.KindUnavailable)
	a.now = a.now.Add(gateway.AccessRequestLife)
	a.add(request(1, 5000, "more")) // whose Commits remove all others
	if len(a.All()) != 1 {
		t.Errorf("%d are left", len(a.All()))
	}
	a.open()
	if len(a.All()) != 1 {
		t.Errorf("%d are left after a restart", len(a.All()))
	}
}
