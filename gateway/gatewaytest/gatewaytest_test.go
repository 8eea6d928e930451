package gatewaytest_test

import (
	"errors"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func TestDirectoryOverRecords(t *testing.T) {
	records := new(gatewaytest.Records)
	given := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Desired: gateway.Running}
	directory := gatewaytest.NewDirectory(t, records, given)
	blog, ok := directory.ByName("blog")
	if !ok || blog.Number == 0 || !blog.Addr.Is4() {
		t.Fatalf("got %+v, %v", blog, ok)
	}
	shop, err := directory.Create(t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "shop"}})
	if err != nil || shop.Number == blog.Number || shop.Addr == blog.Addr {
		t.Errorf("a second VM: %+v, %v", shop, err)
	}
	full := errors.New("disk full")
	records.FailWith(full)
	if err := directory.Delete(t.Context(), shop.ID); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	records.FailWith(nil)
	if again := gatewaytest.NewDirectory(t, records); len(again.All()) != 2 {
		t.Errorf("a second Directory has %v", again.All())
	}
}

func TestLogCounts(t *testing.T) {
	log := new(gatewaytest.Log)
	log.Logger().Debug("mail delivered", "vm", "blog")
	log.Logger().Info("mail delivered", "vm", "shop")
	if n := log.Count("mail delivered"); n != 2 {
		t.Errorf("counted %d in %s", n, log)
	}
}
