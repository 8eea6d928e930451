package storage

import (
	"testing"

	"lodge/gateway"
)

func TestTenants(t *testing.T) {
	all := newTenants()
	a, b := gateway.NewID(), gateway.NewID()
	var leave []func()
	for range maxRequestsPerVM {
		_, l, err := all.enter(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, _, err := all.enter(t.Context(), a); err == nil {
		t.Fatal("one request too many was let in")
	}
	ctx, leaveB, err := all.enter(t.Context(), b)
	if err != nil {
		t.Fatalf("another VM has to wait: %v", err)
	}
	leave[0]()
	if _, l, err := all.enter(t.Context(), a); err != nil {
		t.Fatal(err)
	} else {
		l()
	}
	all.end(b)
	<-ctx.Done() // the VM's requests end with it
	leaveB()
	if _, _, err := all.enter(t.Context(), b); err == nil {
		t.Fatal("a removed VM was let in")
	}
	for _, l := range leave[1:] {
		l()
	}
	if len(all.all) != 1 {
		t.Fatalf("%d VMs are remembered; only the removed one needs to be", len(all.all))
	}
}
