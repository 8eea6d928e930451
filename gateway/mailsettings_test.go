package gateway_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func vmWithAliases(name string, aliases ...string) gateway.VM {
	return gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running, Mail: gateway.MailSettings{Aliases: aliases},
	}
}

func setAliases(t *testing.T, d *gateway.Directory, id gateway.ID, aliases ...string) error {
	t.Helper()
	_, err := d.Update(t.Context(), id, func(m *gateway.VM) error { m.Mail.Aliases = aliases; return nil })
	return err
}

func TestCheckAlias(t *testing.T) {
	for alias, ok := range map[string]bool{
		"sales": true, "sales@": true, "first.last@": true, "a_b-c.d1@": true, strings.Repeat("a", 64) + "@": true,
		"": false, "@": false, strings.Repeat("a", 65) + "@": false, "Sales@": false, "a..b@": false, ".a@": false, "a-@": false,
		"a+b@": false, "a b@": false, "a@b@": false, "ä@": false, "www": false, "a.b": false, "postmaster": false, "\x00@": false,
		"postmaster@": false, "abuse@": false, "admin@": false, "webmaster@": false, "root@": false, gateway.NewMailLocal() + "@": false,
	} {
		err := gateway.CheckAlias(alias)
		if ok != (err == nil) || err != nil && gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%q: %v", alias, err)
		}
	}
}

// A name is a VM's or an alias, never both, whichever came first. A local part at the domain is apart.
func TestAliasesClash(t *testing.T) {
	d := gatewaytest.NewDirectory(t, new(gatewaytest.Records), vmWithAliases("blog", "shop", "sales@"))
	blog, _ := d.ByName("blog")
	other, err := d.Create(t.Context(), vmWithAliases("sales"))
	gatewaytest.Must(t, err)
	for name, err := range map[string]error{
		"a new VM with an alias's name": second(d.Create(t.Context(), vmWithAliases("shop"))),
		"a new VM with an alias":        second(d.Create(t.Context(), vmWithAliases("third", "sales@"))),
		"a new VM with a VM's name":     second(d.Create(t.Context(), vmWithAliases("third", "blog"))),
		"its own name":                  setAliases(t, d, other.ID, "sales"),
		"another's name":                setAliases(t, d, other.ID, "blog"),
		"another's alias":               setAliases(t, d, other.ID, "shop"),
		"another's local part":          setAliases(t, d, other.ID, "sales@"),
		"a rename to an alias": second(d.Update(t.Context(), other.ID, func(m *gateway.VM) error {
			m.Name = "shop"
			return nil
		})),
	} {
		if gateway.KindOf(err) != gateway.KindTaken {
			t.Errorf("%s: %v", name, err)
		}
	}
	many := make([]string, gateway.MaxMailAliases+1)
	for i := range many {
		many[i] = fmt.Sprintf("a%d@", i)
	}
	if err := setAliases(t, d, other.ID, many...); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("too many: %v", err)
	}
	gatewaytest.Must(t, setAliases(t, d, other.ID, many[1:]...))
	_, err = d.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Desired = gateway.Removed; return nil })
	gatewaytest.Must(t, err)
	if _, ok := d.ByAlias("shop"); ok {
		t.Error("a VM that is being removed has an alias")
	}
	gatewaytest.Must(t, setAliases(t, d, other.ID, "shop", "sales@"))
}

func second[T any](_ T, err error) error { return err }

// Of VMs that are made at once, with one name as name or as alias, exactly one gets it.
func TestAliasRace(t *testing.T) {
	d := gatewaytest.NewDirectory(t, new(gatewaytest.Records))
	var all sync.WaitGroup
	results := make([]error, 20)
	for i := range results {
		all.Go(func() {
			m := vmWithAliases("shop")
			if i%2 == 0 {
				m = vmWithAliases(fmt.Sprintf("vm%d", i), "shop")
			}
			_, results[i] = d.Create(t.Context(), m)
		})
	}
	all.Wait()
	taken := slices.DeleteFunc(slices.Clone(results), func(err error) bool { return gateway.KindOf(err) != gateway.KindTaken })
	if len(taken) != len(results)-1 || !slices.Contains(results, nil) {
		t.Errorf("results: %v", results)
	}
}

// What CheckAlias lets pass is one form of one address: nothing else has its mail.
func FuzzCheckAlias(f *testing.F) {
	for _, seed := range []string{"sales", "sales@", "a.b@", "A@", "postmaster@", "a+b@"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, alias string) {
		if gateway.CheckAlias(alias) != nil {
			return
		}
		local, _ := strings.CutSuffix(alias, "@")
		if gateway.PlainLocal(local) != local || strings.ContainsAny(local, "@ \"\r\n<>") || len(local) > 64 {
			t.Errorf("%q is an alias", alias)
		}
	})
}

func TestNewMailLocal(t *testing.T) {
	local := gateway.NewMailLocal()
	s := gateway.MailSettings{Addresses: []gateway.MailAddress{{Local: local, From: []string{"a@b.example"}, Expires: time.Unix(1e9, 0)}}}
	if len(local) > 64 || local == gateway.NewMailLocal() || !s.Accepts(local, "a@b.example", time.Unix(1e9-1, 0)) || s.Accepts(local, "a@b.example", time.Unix(1e9, 0)) {
		t.Errorf("%s", local)
	}
}
