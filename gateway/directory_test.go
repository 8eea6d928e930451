package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
)

// memory is Records without a disk. Its next write fails with fail.
type memory struct {
	all    map[gateway.ID]gateway.VM
	number uint32
	fail   error
}

func (m *memory) VMs(context.Context) ([]gateway.VM, error) {
	var all []gateway.VM
	for _, one := range m.all {
		all = append(all, one)
	}
	return all, m.fail
}

func (m *memory) Create(_ context.Context, one gateway.VM) (gateway.VM, error) {
	m.number++
	one.Number = m.number
	one.Addr = netip.AddrFrom4([4]byte{10, 213, byte(m.number >> 8), byte(m.number)})
	return one, m.Save(context.Background(), one)
}

func (m *memory) Save(_ context.Context, one gateway.VM) error {
	if m.fail == nil {
		m.all[one.ID] = one
	}
	return m.fail
}

func (m *memory) Delete(_ context.Context, id gateway.ID) error {
	if m.fail == nil {
		delete(m.all, id)
	}
	return m.fail
}

// hasty is Records that writes and then fails if the caller has gone meanwhile, as database/sql's drivers do.
type hasty struct{ *memory }

func (h hasty) Save(ctx context.Context, m gateway.VM) error {
	return errors.Join(h.memory.Save(ctx, m), ctx.Err())
}

// What is on disk and what is seen are the same, although a caller goes away in the middle of a write.
func TestWritesDoNotEndWithTheirCaller(t *testing.T) {
	records := &memory{all: map[gateway.ID]gateway.VM{}}
	d, err := gateway.OpenDirectory(t.Context(), hasty{records})
	fatal(t, err)
	m := create(t, d, "blog")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = d.Update(ctx, m.ID, func(m *gateway.VM) error {
		m.Desired = gateway.Stopped
		return nil
	})
	if now, _ := d.ByID(m.ID); err != nil || now.Desired != records.all[m.ID].Desired {
		t.Errorf("%v: %v is seen and %v is on disk", err, now.Desired, records.all[m.ID].Desired)
	}
}

func openDirectory(t *testing.T, names ...string) (*gateway.Directory, *memory) {
	t.Helper()
	records := &memory{all: map[gateway.ID]gateway.VM{}}
	d, err := gateway.OpenDirectory(t.Context(), records)
	fatal(t, err)
	for _, name := range names {
		create(t, d, name)
	}
	return d, records
}

func create(t *testing.T, d *gateway.Directory, name string) gateway.VM {
	t.Helper()
	m, err := d.Create(t.Context(), machine(name))
	fatal(t, err)
	return m
}

func machine(name string) gateway.VM {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running}
}

func desire(state gateway.Desired) func(*gateway.VM) error {
	return func(m *gateway.VM) error { m.Desired = state; return nil }
}

func rename(to string) func(*gateway.VM) error {
	return func(m *gateway.VM) error { m.Name = to; return nil }
}

func names(d *gateway.Directory) (all []string) {
	for _, m := range d.All() {
		all = append(all, m.Name)
	}
	return all
}

func TestDirectoryFinds(t *testing.T) {
	d, records := openDirectory(t, "web", "blog", "db")
	if diff := cmp.Diff([]string{"blog", "db", "web"}, names(d)); diff != "" {
		t.Errorf("All (-want +got):\n%s", diff)
	}
	m, ok := d.ByName("blog")
	if !ok || m.Number != 2 || m.Created.IsZero() {
		t.Errorf("ByName: %+v, %v", m, ok)
	}
	if same, ok := d.ByID(m.ID); !ok || !cmp.Equal(same, m, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
		t.Errorf("ByID: %+v, %v", same, ok)
	}
	again, err := gateway.OpenDirectory(t.Context(), records)
	fatal(t, err)
	if diff := cmp.Diff(names(d), names(again)); diff != "" {
		t.Errorf("opened again (-was +is):\n%s", diff)
	}
}

func TestDirectoryRefuses(t *testing.T) {
	d, _ := openDirectory(t, "blog", "web")
	blog, _ := d.ByName("blog")
	for _, tt := range []struct {
		name string
		do   func() error
		want gateway.Kind
	}{
		{"create with a name that is taken", func() error { _, err := d.Create(t.Context(), machine("web")); return err }, gateway.KindTaken},
		{"create with a bad name", func() error { _, err := d.Create(t.Context(), machine("WEB")); return err }, gateway.KindInvalid},
		{"create without an ID", func() error {
			_, err := d.Create(t.Context(), gateway.VM{Identity: gateway.Identity{Name: "x"}})
			return err
		}, gateway.KindInternal},
		{"rename to a name that is taken", func() error { _, err := d.Update(t.Context(), blog.ID, rename("web")); return err }, gateway.KindTaken},
		{"rename to a bad name", func() error { _, err := d.Update(t.Context(), blog.ID, rename("s3")); return err }, gateway.KindInvalid},
		{"update nobody", func() error { _, err := d.Update(t.Context(), gateway.NewID(), desire(gateway.Stopped)); return err }, gateway.KindNotFound},
		{"update against its will", func() error {
			_, err := d.Update(t.Context(), blog.ID, func(*gateway.VM) error { return gateway.Errorf(gateway.KindConflict, "no") })
			return err
		}, gateway.KindConflict},
	} {
		if err := tt.do(); err == nil || gateway.KindOf(err) != tt.want {
			t.Errorf("%s: %v, want kind %s", tt.name, err, tt.want)
		}
	}
	if diff := cmp.Diff([]string{"blog", "web"}, names(d)); diff != "" {
		t.Errorf("after refusals (-want +got):\n%s", diff)
	}
	fatal(t, d.Delete(t.Context(), gateway.NewID())) // gone already
}

func TestUpdateCannotChangeIdentity(t *testing.T) {
	d, records := openDirectory(t, "blog", "web")
	blog, _ := d.ByName("blog")
	web, _ := d.ByName("web")
	got, err := d.Update(t.Context(), blog.ID, func(m *gateway.VM) error {
		m.Identity = web.Identity
		m.Name = "journal"
		return nil
	})
	fatal(t, err)
	want := blog.Identity
	want.Name = "journal"
	if got.Identity != want || records.all[blog.ID].Identity != want {
		t.Errorf("it became %v, want %v", got.Identity, want)
	}
	if now, _ := d.ByName("web"); now.Identity != web.Identity {
		t.Errorf("the other became %v", now.Identity)
	}
	if _, ok := d.ByName("blog"); ok {
		t.Error("the old name is still there")
	}
}

// A new "blog" has nothing of the old one, which cannot come back.
func TestRemovedIsFinal(t *testing.T) {
	d, _ := openDirectory(t, "blog")
	old, _ := d.ByName("blog")
	_, err := d.Update(t.Context(), old.ID, desire(gateway.Removed))
	fatal(t, err)
	if _, ok := d.ByName("blog"); ok {
		t.Error("a VM that is being removed still has its name")
	}
	if _, ok := d.ByID(old.ID); !ok {
		t.Error("a VM that is being removed is not known by its ID")
	}
	heir := create(t, d, "blog")
	if _, err := d.Update(t.Context(), old.ID, desire(gateway.Running)); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("it came back: %v", err)
	}
	fatal(t, d.Delete(t.Context(), old.ID))
	if now, ok := d.ByName("blog"); !ok || now.ID != heir.ID || now.Number == old.Number || now.Addr == old.Addr {
		t.Errorf("blog is %v, want %v", now.Identity, heir.Identity)
	}
	if _, ok := d.ByID(old.ID); ok {
		t.Error("the old one is still known")
	}
}

// What is not on disk is not seen, and nobody is told of it.
func TestFailedWritesAreNotSeen(t *testing.T) {
	d, records := openDirectory(t, "blog")
	blog, _ := d.ByName("blog")
	d.Watch(func(_, new gateway.VM) { t.Errorf("told of %v", new.Identity) })
	records.fail = errors.New("disk on fire")
	_, created := d.Create(t.Context(), machine("web"))
	_, updated := d.Update(t.Context(), blog.ID, rename("journal"))
	for name, err := range map[string]error{"create": created, "update": updated, "delete": d.Delete(t.Context(), blog.ID)} {
		if !errors.Is(err, records.fail) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff([]string{"blog"}, names(d)); diff != "" {
		t.Errorf("seen (-want +got):\n%s", diff)
	}
	if _, err := gateway.OpenDirectory(t.Context(), records); !errors.Is(err, records.fail) {
		t.Errorf("open: %v", err)
	}
}

func TestWatchTellsEveryChangeInOrder(t *testing.T) {
	d, _ := openDirectory(t)
	var told []string
	d.Watch(func(old, new gateway.VM) {
		if now, ok := d.ByName(new.Name); ok && now.Desired != new.Desired {
			t.Error("told before it is seen")
		}
		told = append(told, fmt.Sprintf("%s %s, %s %s", old.Name, old.Desired, new.Name, new.Desired))
	})
	m := create(t, d, "blog")
	_, err := d.Update(t.Context(), m.ID, desire(gateway.Removed))
	fatal(t, err)
	fatal(t, d.Delete(t.Context(), m.ID))
	want := []string{" , blog running", "blog running, blog removed", "blog removed,  "}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestDirectoryAtOnce(t *testing.T) {
	d, _ := openDirectory(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				m, err := d.Create(t.Context(), machine(fmt.Sprintf("vm%d", i)))
				if err != nil {
					t.Errorf("create: %v", err)
					return
				}
				for _, seen := range d.All() {
					if same, ok := d.ByID(seen.ID); ok && same.Name != seen.Name {
						t.Errorf("%s is also %s", seen.Name, same.Name)
					}
				}
				if err := d.Delete(t.Context(), m.ID); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	all.Wait()
	if got := names(d); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}

func TestShares(t *testing.T) {
	var m gateway.VM
	m.Shares = m.WithShare(8080, gateway.Public)
	first := m.Shares
	m.Shares = m.WithShare(gateway.DefaultPort, gateway.Public)
	m.Shares = m.WithShare(8080, gateway.Public)
	for port, want := range map[uint16]gateway.Visibility{8080: gateway.Public, gateway.DefaultPort: gateway.Public, 80: gateway.Private} {
		if got := m.Visibility(port); got != want {
			t.Errorf("port %d is %s, want %s", port, got, want)
		}
	}
	if m.Shares = m.WithShare(8080, gateway.Private); len(m.Shares) != 1 || m.Visibility(8080) != gateway.Private {
		t.Errorf("made private again: %v", m.Shares)
	}
	if len(first) != 1 || first[0].Port != 8080 {
		t.Errorf("an older value was changed in place: %v", first)
	}
}
