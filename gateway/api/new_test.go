package api_test

import (
	"context"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
)

// maker records VMs, and calls before New returns.
type maker struct {
	api.Machines
	directory *gateway.Directory
	last      func()
}

func (m maker) New(ctx context.Context, spec gateway.Spec, _ func(gateway.Progress)) (gateway.VM, error) {
	defer m.last()
	return m.directory.Create(ctx, gateway.VM{
		Identity: gateway.Identity{ID: gateway.NewID(), Name: spec.Name}, Desired: gateway.Running, Grants: spec.Grants,
	})
}

func (m maker) Remove(ctx context.Context, id gateway.ID) error { return m.directory.Delete(ctx, id) }

// The first record of a member's VM has their grant: a crash at any moment leaves no VM that they cannot manage.
func TestMembersManageTheirVMFromItsFirstRecord(t *testing.T) {
	a, _ := sharing(t)
	ada, _, err := a.People.Add(t.Context(), "ada@example.com", people.Member)
	gatewaytest.Must(t, err)
	var writes []gateway.VM
	a.Directory.Watch(func(_, m gateway.VM) { writes = append(writes, m) })
	a.Machines = maker{directory: a.Directory, last: func() {}}
	s := a.As(api.PersonCaller(ada.ID))
	if _, err = s.New(t.Context(), gateway.Spec{Name: "adas", Grants: []gateway.Grant{{To: 999, Level: gateway.Manage}}}, nil); err != nil {
		t.Fatal(err)
	}
	if len(writes) != 1 || len(writes[0].Grants) != 1 || writes[0].Grants[0] != (gateway.Grant{To: ada.ID, Level: gateway.Manage}) {
		t.Errorf("the records: %+v", writes)
	}
	_, err = a.As(api.Owner()).New(t.Context(), gateway.Spec{Name: "anns"}, nil)
	if m, _ := a.Directory.ByName("anns"); err != nil || len(m.Grants) != 0 {
		t.Errorf("the owner's: %+v, %v", m, err)
	}
	a.Machines = maker{directory: a.Directory, last: func() {
		_, _, err := a.People.Add(t.Context(), ada.Mail, people.Guest)
		gatewaytest.Must(t, err)
	}}
	_, err = s.New(t.Context(), gateway.Spec{Name: "more"}, nil)
	if _, ok := a.Directory.ByName("more"); gateway.KindOf(err) != gateway.KindDenied || ok {
		t.Errorf("a VM of one who became a guest: %t, %v", ok, err)
	}
}
