package store

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

func opened(t *testing.T, path, guests string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, netip.MustParsePrefix(guests))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = s.Close() }) // some tests close it earlier
	return s
}

func fresh(t *testing.T, guests string) *Store {
	t.Helper()
	return opened(t, filepath.Join(t.TempDir(), "lodge.db"), guests)
}

func named(name string) gateway.VM {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running}
}

// claimed checks that there are these claims and no others; a resting address has a "*".
func claimed(t *testing.T, s *Store, want ...string) {
	t.Helper()
	var got []string
	for _, prefix := range []string{namePrefix, domainPrefix, localPrefix, addrPrefix} {
		entries, _, err := s.shared.List(t.Context(), prefix)
		gatewaytest.Must(t, err)
		for _, e := range entries {
			if len(e.Value) == 0 {
				e.Key += "*"
			}
			got = append(got, e.Key)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("claims %q, want %q", got, want)
	}
}

func TestClaimsFollowTheVM(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fresh(t, "10.213.0.0/29")
		blog, err := s.Create(t.Context(), named("blog"))
		gatewaytest.Must(t, err)
		claimed(t, s, "name/blog", "addr/10.213.0.2")
		blog.Name = "journal"
		gatewaytest.Must(t, s.Save(t.Context(), blog))
		claimed(t, s, "name/journal", "addr/10.213.0.2")
		blog.Desired = gateway.Removed
		gatewaytest.Must(t, s.Save(t.Context(), blog))
		claimed(t, s, "addr/10.213.0.2")
		gatewaytest.Must(t, s.Delete(t.Context(), blog.ID))
		claimed(t, s, "addr/10.213.0.2*")
		<-time.After(AddressRest - time.Second)
		claimed(t, s, "addr/10.213.0.2*")
		<-time.After(2 * time.Second)
		claimed(t, s)
		if again, err := s.Create(t.Context(), named("blog")); err != nil || again.Addr != blog.Addr || again.Number != blog.Number+1 {
			t.Errorf("the next VM: %v, %v", again.Identity, err)
		}
	})
}

// Rows that cannot be written leave no claim for longer than the next VM needs.
func TestFailedRowsLeaveNoClaim(t *testing.T) {
	s := fresh(t, "10.213.0.0/29")
	blog, err := s.Create(t.Context(), named("blog"))
	gatewaytest.Must(t, err)
	exec := func(statement string) {
		t.Helper()
		_, err := s.db.ExecContext(t.Context(), statement)
		gatewaytest.Must(t, err)
	}
	exec(`CREATE TRIGGER no_row BEFORE INSERT ON machines BEGIN SELECT raise(ABORT, 'no'); END`)
	exec(`CREATE TRIGGER no_change BEFORE UPDATE ON machines BEGIN SELECT raise(ABORT, 'no'); END`)
	if _, err := s.Create(t.Context(), named("web")); err == nil {
		t.Error("a VM without a row")
	}
	renamed := blog
	renamed.Name = "journal"
	if err := s.Save(t.Context(), renamed); err == nil {
		t.Error("a new name without a row")
	}
	exec(`DROP TRIGGER no_row`)
	for _, name := range []string{"web", "journal"} {
		if _, err := s.Create(t.Context(), named(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	claimed(t, s, "name/blog", "name/journal", "name/web",
		"addr/10.213.0.2", "addr/10.213.0.3*", "addr/10.213.0.4", "addr/10.213.0.5")
}

// A crash between claim and row, or between the end of a row and of its claims, is undone at the
// next start.
func TestCrashLeavesNoClaim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	s := opened(t, path, "10.213.0.0/29")
	blog, err := s.Create(t.Context(), named("blog"))
	gatewaytest.Must(t, err)
	_, err = s.Create(t.Context(), named("web"))
	gatewaytest.Must(t, err)
	_, err = s.claim(t.Context(), gateway.NewID(), "half")
	gatewaytest.Must(t, err)
	_, err = s.db.ExecContext(t.Context(), `DELETE FROM machines WHERE id = ?`, blog.ID[:])
	gatewaytest.Must(t, err)
	claimed(t, s, "name/blog", "name/half", "name/web", "addr/10.213.0.2", "addr/10.213.0.3", "addr/10.213.0.4")
	gatewaytest.Must(t, s.Close())
	s = opened(t, path, "10.213.0.0/29")
	claimed(t, s, "name/web", "addr/10.213.0.2*", "addr/10.213.0.3", "addr/10.213.0.4*")
	if next, err := s.Create(t.Context(), named("half")); err != nil || next.Number != 4 {
		t.Errorf("the next VM: %v, %v", next.Identity, err)
	}
}

// Claims at the same time give no number or address twice, and a name to one.
func TestClaimsRace(t *testing.T) {
	s := fresh(t, "10.213.0.0/24")
	var mu sync.Mutex
	won := map[gateway.Identity]bool{}
	numbers, addrs, names := map[uint32]bool{}, map[netip.Addr]bool{}, map[string]bool{}
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			vm, err := s.claim(t.Context(), gateway.NewID(), strings.Repeat("x", 1+i%10))
			if gateway.KindOf(err) == gateway.KindTaken {
				return
			}
			if err != nil {
				t.Errorf("claim: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			won[vm], numbers[vm.Number], addrs[vm.Addr], names[vm.Name] = true, true, true, true
		})
	}
	all.Wait()
	if len(won) != 10 || len(numbers) != 10 || len(addrs) != 10 || len(names) != 10 {
		t.Errorf("%d won %d numbers, %d addresses and %d names, want 10 each", len(won), len(numbers), len(addrs), len(names))
	}
}
