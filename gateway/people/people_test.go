package people_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
)

const ann = "ann@example.org" // the owner

// opened is a Book in a real file.
func opened(tb testing.TB, file string) (*people.Book, *store.Store) {
	tb.Helper()
	db, err := store.Open(tb.Context(), file, netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(tb, err)
	tb.Cleanup(func() { _ = db.Close() }) // a second time does nothing
	b, err := people.Open(tb.Context(), db.Shared(), ann)
	gatewaytest.Must(tb, err)
	return b, db
}

func file(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "lodge.db")
}

func add(tb testing.TB, b *people.Book, mail string, role people.Role) people.Person {
	tb.Helper()
	p, _, err := b.Add(tb.Context(), mail, role)
	gatewaytest.Must(tb, err)
	return p
}

func TestPeopleAreKept(t *testing.T) {
	path := file(t)
	b, db := opened(t, path)
	ada, bob := add(t, b, "Ada@EXAMPLE.com", people.Member), add(t, b, "bob@example.com", "")
	if ada.Mail != "ada@example.com" || ada.Role != people.Member || bob.Role != people.Guest {
		t.Errorf("added %+v and %+v", ada, bob)
	}
	devs, err := b.ChangeTeam(t.Context(), "devs", []gateway.Principal{bob.ID, ada.ID, bob.ID}, nil)
	gatewaytest.Must(t, err)
	if again, before, err := b.Add(t.Context(), "ada@example.com", ""); err != nil || before != people.Member || again != ada {
		t.Errorf("added once more: %+v, %s, %v", again, before, err)
	}
	add(t, b, "ada@example.com", people.Owner)
	gatewaytest.Must(t, db.Close())

	b, _ = opened(t, path)
	if p, ok := b.ByMail("ada@example.com"); !ok || p.ID != ada.ID || p.Role != people.Owner || !p.Added.Equal(ada.Added) {
		t.Errorf("after a restart: %+v", p)
	}
	if got, ok := b.Team(devs.ID); !ok || got.Name != "devs" || !slices.Equal(got.Members, []gateway.Principal{ada.ID, bob.ID}) {
		t.Errorf("after a restart: %+v", got)
	}
	if len(b.All()) != 3 || b.All()[1].Mail != ann || b.Owner().Mail != ann {
		t.Errorf("everyone: %+v", b.All())
	}
}

// What was for one who is removed is for nobody, also when the address comes back.
func TestRemovedPersonNeverComesBack(t *testing.T) {
	path := file(t)
	b, db := opened(t, path)
	ada := add(t, b, "ada@example.com", "")
	_, err := b.ChangeTeam(t.Context(), "devs", []gateway.Principal{ada.ID}, nil)
	gatewaytest.Must(t, err)
	devs, _ := b.TeamNamed("devs")
	vm := gateway.VM{Shares: []gateway.Share{{Port: 1, Visibility: gateway.People, With: []gateway.Principal{ada.ID}}}}
	team := gateway.VM{Grants: vm.WithGrant(devs.ID, gateway.Manage)}
	vm.Grants = vm.WithGrant(ada.ID, gateway.Use)
	for range 2 { // the second time after a restart
		_, err := b.Remove(t.Context(), "ADA@example.com")
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, db.Close())
		b, db = opened(t, path)
		again := add(t, b, "ada@example.com", "")
		for _, id := range []gateway.Principal{ada.ID, again.ID} {
			if b.Level(id, vm) != gateway.NoLevel || b.Level(id, team) != gateway.NoLevel || b.MayOpen(id, vm, 1) {
				t.Errorf("%d, once %d, may do what Ada could", id, ada.ID)
			}
		}
		if again.ID <= ada.ID {
			t.Errorf("the ID %d after %d", again.ID, ada.ID)
		}
	}
	if devs, _ = b.TeamNamed("devs"); len(devs.Members) != 0 {
		t.Errorf("the team has %v", devs.Members)
	}
	if _, err := b.Remove(t.Context(), "nobody@example.com"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("nobody removed: %v", err)
	}
}

func TestRemovedTeamNeverComesBack(t *testing.T) {
	b, _ := opened(t, file(t))
	ada := add(t, b, "ada@example.com", "")
	old, err := b.ChangeTeam(t.Context(), "devs", []gateway.Principal{ada.ID}, nil)
	gatewaytest.Must(t, err)
	vm := gateway.VM{Grants: gateway.VM{}.WithGrant(old.ID, gateway.Use)}
	if b.Level(ada.ID, vm) != gateway.Use {
		t.Fatal("a team gives its member nothing")
	}
	_, err = b.RemoveTeam(t.Context(), "devs")
	gatewaytest.Must(t, err)
	again, err := b.ChangeTeam(t.Context(), "devs", []gateway.Principal{ada.ID}, nil)
	if err != nil || again.ID == old.ID || b.Level(ada.ID, vm) != gateway.NoLevel {
		t.Errorf("the new team %+v has what the old one had, %v", again, err)
	}
	if _, err := b.RemoveTeam(t.Context(), "ops"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("no team removed: %v", err)
	}
	if _, err := b.ChangeTeam(t.Context(), "ops", nil, []gateway.Principal{ada.ID}); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("removed from no team: %v", err)
	}
}

func TestThereIsAlwaysAnOwner(t *testing.T) {
	path := file(t)
	b, db := opened(t, path)
	bob := add(t, b, "bob@example.com", people.Owner)
	if _, err := b.Remove(t.Context(), ann); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("the owner was removed: %v", err)
	}
	if _, _, err := b.Add(t.Context(), ann, people.Guest); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("the owner became a guest: %v", err)
	}
	if _, err := b.Remove(t.Context(), bob.Mail); err != nil {
		t.Errorf("another owner stays: %v", err)
	}
	old := b.Owner()
	gatewaytest.Must(t, db.Close())
	db, err := store.Open(t.Context(), path, netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, db.Close()) })
	if b, err = people.Open(t.Context(), db.Shared(), "Carol@example.org"); err != nil {
		t.Fatal(err)
	}
	if b.Owner().Mail != "carol@example.org" || !b.IsOwner(b.Owner().ID) || b.IsOwner(old.ID) {
		t.Errorf("with another configuration: %+v, and %+v", b.Owner(), old)
	}
}

// Who is made an owner while the configuration names them stays one when it names another.
func TestStoredRoleOfTheOwner(t *testing.T) {
	path := file(t)
	b, db := opened(t, path)
	if p, before, err := b.Add(t.Context(), ann, people.Owner); err != nil || before != people.Member || p.Role != people.Owner {
		t.Errorf("the owner as an owner: %+v, before %s, %v", p, before, err)
	}
	old := b.Owner()
	gatewaytest.Must(t, db.Close())
	db, err := store.Open(t.Context(), path, netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, db.Close()) })
	b, err = people.Open(t.Context(), db.Shared(), "carol@example.org")
	gatewaytest.Must(t, err)
	if !b.IsOwner(old.ID) || b.Owner().ID == old.ID {
		t.Errorf("with another configuration: %+v", b.All())
	}
}

// A change is seen by none before it is on disk, and by none when it fails.
func TestFailedChangeIsInvisible(t *testing.T) {
	b, db := opened(t, file(t))
	ada := add(t, b, "ada@example.com", "")
	changes := 0
	b.Watch(func() { changes++ })
	gatewaytest.Must(t, db.Close())
	for name, change := range map[string]func() error{
		"add":    func() error { _, _, err := b.Add(t.Context(), "bob@example.com", ""); return err },
		"role":   func() error { _, _, err := b.Add(t.Context(), "ada@example.com", people.Owner); return err },
		"remove": func() error { _, err := b.Remove(t.Context(), "ada@example.com"); return err },
		"team":   func() error { _, err := b.ChangeTeam(t.Context(), "devs", nil, nil); return err },
	} {
		if err := change(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if p, ok := b.Person(ada.ID); len(b.All()) != 2 || !ok || p.Role != people.Guest || len(b.Teams()) != 0 || changes != 0 {
		t.Errorf("%v, %v, %d changes", b.All(), b.Teams(), changes)
	}
}

// interrupted fails every Commit after it was carried out, as when the answer is lost.
type interrupted struct{ gateway.Shared }

func (i interrupted) Commit(ctx context.Context, still []gateway.Cond, do []gateway.Op) (gateway.Revision, error) {
	rev, err := i.Shared.Commit(ctx, still, do)
	return rev, errors.Join(err, errors.New("the answer is lost"))
}

func TestLostAnswerIsReadAgain(t *testing.T) {
	_, db := opened(t, file(t))
	b, err := people.Open(t.Context(), interrupted{db.Shared()}, ann)
	gatewaytest.Must(t, err)
	seen := 0
	b.Watch(func() { seen++ })
	if _, _, err := b.Add(t.Context(), "bob@example.com", ""); err == nil {
		t.Error("no error")
	}
	if _, ok := b.ByMail("bob@example.com"); !ok {
		t.Error("what is on disk is not in memory")
	}
	if _, err := b.Remove(t.Context(), "bob@example.com"); err == nil || seen != 2 {
		t.Errorf("%d changes are seen, %v", seen, err)
	}
}

func TestManyWriters(t *testing.T) {
	b, _ := opened(t, file(t))
	var seen atomic.Int32
	b.Watch(func() { seen.Add(1) })
	var writers sync.WaitGroup
	for i := range 20 {
		writers.Go(func() {
			p, _, err := b.Add(t.Context(), fmt.Sprintf("p%d@example.com", i/2), "") // each twice
			if err == nil {
				_, err = b.ChangeTeam(t.Context(), "devs", []gateway.Principal{p.ID}, nil)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if devs, _ := b.TeamNamed("devs"); len(devs.Members) != 10 || len(b.All()) != 11 || seen.Load() != 30 {
		t.Errorf("%d members, %d people, %d changes", len(devs.Members), len(b.All()), seen.Load())
	}
}

func TestMayOpen(t *testing.T) {
	b, _ := opened(t, file(t))
	ada, bob := add(t, b, "ada@example.com", ""), add(t, b, "bob@sub.example.com", people.Member)
	devs, err := b.ChangeTeam(t.Context(), "devs", []gateway.Principal{bob.ID}, nil)
	gatewaytest.Must(t, err)
	with := func(v gateway.Visibility, to ...gateway.Principal) gateway.Share {
		return gateway.Share{Port: 80, Visibility: v, With: to}
	}
	for name, tt := range map[string]struct {
		vm       gateway.VM
		ada, bob bool
	}{
		"private":           {gateway.VM{}, false, false},
		"another port":      {gateway.VM{Shares: []gateway.Share{{Port: 81, Visibility: gateway.People, With: []gateway.Principal{ada.ID}}}}, false, false},
		"a person":          {gateway.VM{Shares: []gateway.Share{with(gateway.People, ada.ID)}}, true, false},
		"a team":            {gateway.VM{Shares: []gateway.Share{with(gateway.Team, devs.ID)}}, false, true},
		"a domain":          {gateway.VM{Shares: []gateway.Share{{Port: 80, Visibility: gateway.People, Domains: []string{"example.com"}}}}, true, false},
		"a link":            {gateway.VM{Shares: []gateway.Share{with(gateway.Link, ada.ID)}}, true, false},
		"a team and others": {gateway.VM{Shares: []gateway.Share{with(gateway.Team, ada.ID, devs.ID)}}, true, true},
		"made private":      {gateway.VM{Shares: []gateway.Share{with(gateway.Private, ada.ID)}}, false, false},
		"of a later Lodge":  {gateway.VM{Shares: []gateway.Share{with("magic", ada.ID)}}, false, false},
		"a grant":           {gateway.VM{Grants: []gateway.Grant{{To: ada.ID, Level: gateway.View}}}, true, false},
		"a grant to a team": {gateway.VM{Grants: []gateway.Grant{{To: devs.ID, Level: gateway.View}}}, false, true},
		"an unknown grant":  {gateway.VM{Grants: []gateway.Grant{{To: ada.ID, Level: "magic"}}}, false, false},
	} {
		for who, want := range map[gateway.Principal]bool{ada.ID: tt.ada, bob.ID: tt.bob, b.Owner().ID: true, 0: false, 999: false, devs.ID: false} {
			if got := b.MayOpen(who, tt.vm, 80); got != want {
				t.Errorf("%s: %d may open it: %t", name, who, got)
			}
			if _, some := b.FirstPort(who, tt.vm); some != (want || name == "another port" && who == ada.ID) {
				t.Errorf("%s: %d may open some port: %t", name, who, some)
			}
		}
	}
}

func TestLevel(t *testing.T) {
	b, _ := opened(t, file(t))
	ada := add(t, b, "ada@example.com", people.Member)
	devs, err := b.ChangeTeam(t.Context(), "devs", []gateway.Principal{ada.ID}, nil)
	gatewaytest.Must(t, err)
	for _, tt := range []struct{ own, team, want gateway.Level }{
		{gateway.NoLevel, gateway.NoLevel, gateway.NoLevel},
		{gateway.View, gateway.Manage, gateway.Manage},
		{gateway.Use, gateway.View, gateway.Use},
	} {
		var vm gateway.VM
		vm.Grants = vm.WithGrant(devs.ID, tt.team)
		vm.Grants = vm.WithGrant(ada.ID, tt.own)
		if got := b.Level(ada.ID, vm); got != tt.want {
			t.Errorf("%q, by a team %q: %q, want %q", tt.own, tt.team, got, tt.want)
		}
	}
}

func TestLimits(t *testing.T) {
	b, _ := opened(t, file(t))
	for i := range people.MaxTeams {
		_, err := b.ChangeTeam(t.Context(), fmt.Sprintf("t%d", i), nil, nil)
		gatewaytest.Must(t, err)
	}
	if _, err := b.ChangeTeam(t.Context(), "more", nil, nil); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("beyond the limit: %v", err)
	}
	if _, err := b.ChangeTeam(t.Context(), "t0", nil, nil); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	for _, name := range []string{"", "a@b", "Devs", "1st", "-", "dévs", strings.Repeat("a", 58), "a b", "a/b"} {
		if _, err := b.ChangeTeam(t.Context(), name, nil, nil); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("a team named %q: %v", name, err)
		}
	}
}

// Decisions allocate nothing, whoever and whatever is decided on.
func TestDecisionAllocatesNothing(t *testing.T) {
	b, ids, vm := crowd(t)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		i++
		b.MayOpen(ids[i%len(ids)], vm, 80)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// crowd is a Book with people in teams, and a VM that is shared with many of both.
func crowd(tb testing.TB) (*people.Book, []gateway.Principal, gateway.VM) {
	tb.Helper()
	b, _ := opened(tb, file(tb))
	var ids []gateway.Principal
	vm := gateway.VM{Shares: []gateway.Share{{Port: 80, Visibility: gateway.Team, Domains: []string{"example.net"}}}}
	for i := range 100 {
		p := add(tb, b, fmt.Sprintf("p%d@example.com", i), "")
		ids = append(ids, p.ID)
	}
	for i := range 20 {
		t, err := b.ChangeTeam(tb.Context(), fmt.Sprintf("t%d", i), ids[:i+1], nil)
		gatewaytest.Must(tb, err)
		vm.Shares[0].With = append(vm.Shares[0].With, t.ID)
		vm.Grants = vm.WithGrant(ids[i], gateway.View)
	}
	return b, ids, vm
}

func BenchmarkMayOpen(b *testing.B) {
	book, ids, vm := crowd(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		book.MayOpen(ids[i%len(ids)], vm, 80)
	}
}
