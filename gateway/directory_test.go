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
	"lodge/gateway/gatewaytest"
)

// stored returns a VM's record on disk.
func stored(t *testing.T, records *gatewaytest.Records, id gateway.ID) (found gateway.VM) {
	t.Helper()
	all, err := records.VMs(t.Context())
	fatal(t, err)
	for _, m := range all {
		if m.ID == id {
			found = m
		}
	}
	return found
}

// hasty are Records whose writes are done but fail when ctx has ended, as with some drivers of
// database/sql.
type hasty struct{ *gatewaytest.Records }

func (h hasty) Save(ctx context.Context, m gateway.VM) error {
	return errors.Join(h.Records.Save(ctx, m), ctx.Err())
}

// Disk and memory agree after a write whose caller has left.
func TestWritesDoNotEndWithTheirCaller(t *testing.T) {
	records := new(gatewaytest.Records)
	d, err := gateway.OpenDirectory(t.Context(), hasty{records})
	fatal(t, err)
	m := create(t, d, "blog")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = d.Update(ctx, m.ID, func(m *gateway.VM) error {
		m.Desired = gateway.Stopped
		return nil
	})
	now, _ := d.ByID(m.ID)
	if disk := stored(t, records, m.ID); err != nil || now.Desired != disk.Desired {
		t.Errorf("%v: %v in memory, %v on disk", err, now.Desired, disk.Desired)
	}
}

func openDirectory(t *testing.T, names ...string) (*gateway.Directory, *gatewaytest.Records) {
	t.Helper()
	records := new(gatewaytest.Records)
	d := gatewaytest.NewDirectory(t, records)
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
		{"update unknown VM", func() error { _, err := d.Update(t.Context(), gateway.NewID(), desire(gateway.Stopped)); return err }, gateway.KindNotFound},
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
	if got.Identity != want || stored(t, records, blog.ID).Identity != want {
		t.Errorf("it became %v, want %v", got.Identity, want)
	}
	if now, _ := d.ByName("web"); now.Identity != web.Identity {
		t.Errorf("the other became %v", now.Identity)
	}
	if _, ok := d.ByName("blog"); ok {
		t.Error("the old name is still there")
	}
}

// A new "blog" has no data of the old one, which cannot be restored.
func TestRemovedIsFinal(t *testing.T) {
	d, _ := openDirectory(t, "blog")
	old, _ := d.ByName("blog")
	_, err := d.Update(t.Context(), old.ID, desire(gateway.Removed))
	fatal(t, err)
	if _, ok := d.ByName("blog"); ok {
		t.Error("a VM that is being removed still has its name")
	}
	if _, ok := d.ByID(old.ID); !ok {
		t.Error("a VM that is being removed cannot be found by its ID")
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
		t.Error("the old one still has a record")
	}
}

// A change that is not on disk is not visible, and no Watch reports it.
func TestFailedWritesAreNotSeen(t *testing.T) {
	d, records := openDirectory(t, "blog")
	blog, _ := d.ByName("blog")
	d.Watch(func(_, new gateway.VM) { t.Errorf("reported %v", new.Identity) })
	fail := errors.New("disk on fire")
	records.FailWith(fail)
	_, created := d.Create(t.Context(), machine("web"))
	_, updated := d.Update(t.Context(), blog.ID, rename("journal"))
	for name, err := range map[string]error{"create": created, "update": updated, "delete": d.Delete(t.Context(), blog.ID)} {
		if !errors.Is(err, fail) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff([]string{"blog"}, names(d)); diff != "" {
		t.Errorf("visible (-want +got):\n%s", diff)
	}
	if _, err := gateway.OpenDirectory(t.Context(), records); !errors.Is(err, fail) {
		t.Errorf("open: %v", err)
	}
}

func TestWatchReportsEveryChangeInOrder(t *testing.T) {
	d, _ := openDirectory(t)
	var reported []string
	d.Watch(func(old, new gateway.VM) {
		if now, ok := d.ByName(new.Name); ok && now.Desired != new.Desired {
			t.Error("reported before it is visible")
		}
		reported = append(reported, fmt.Sprintf("%s %s, %s %s", old.Name, old.Desired, new.Name, new.Desired))
	})
	m := create(t, d, "blog")
	_, err := d.Update(t.Context(), m.ID, desire(gateway.Removed))
	fatal(t, err)
	fatal(t, d.Delete(t.Context(), m.ID))
	want := []string{" , blog running", "blog running, blog removed", "blog removed,  "}
	if diff := cmp.Diff(want, reported); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
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
	m.Shares = m.WithShare(gateway.Share{Port: 8080, Visibility: gateway.Public})
	first := m.Shares
	m.Shares = m.WithShare(gateway.Share{Port: gateway.DefaultPort, Visibility: gateway.Public})
	m.Shares = m.WithShare(gateway.Share{Port: 8080, Visibility: gateway.Public})
	for port, want := range map[uint16]gateway.Visibility{8080: gateway.Public, gateway.DefaultPort: gateway.Public, 80: gateway.Private} {
		if got := m.Visibility(port); got != want {
			t.Errorf("port %d is %s, want %s", port, got, want)
		}
	}
	if m.Shares = m.WithShare(gateway.Share{Port: 8080, Visibility: gateway.Private}); len(m.Shares) != 1 || m.Visibility(8080) != gateway.Private {
		t.Errorf("made private again: %v", m.Shares)
	}
	if len(first) != 1 || first[0].Port != 8080 {
		t.Errorf("an older value was changed in place: %v", first)
	}
}
