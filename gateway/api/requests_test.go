package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
)

// Whatever a port was, approving a request adds exactly who asked to exactly that port.
func TestApprovalOpensOnePortToOnePerson(t *testing.T) {
	a, log := sharing(t)
	owner := a.As(api.Owner())
	add := func(mail string) people.Person {
		p, _, err := a.People.Add(t.Context(), mail, "")
		gatewaytest.Must(t, err)
		return p
	}
	ada, bob, eve := add("ada@example.com"), add("bob@example.com"), add("eve@example.com")
	_, err := owner.ChangeTeam(t.Context(), "devs", []string{bob.Mail}, nil)
	gatewaytest.Must(t, err)
	for name, tt := range map[string]struct {
		before api.Share
		want   string
	}{
		"private": {api.Share{Visibility: gateway.Private}, "people [ada@example.com]"},
		"people":  {api.Share{Visibility: gateway.People, With: []string{bob.Mail, "@example.org"}}, "people [@example.org ada@example.com bob@example.com]"},
		"team":    {api.Share{Visibility: gateway.Team, With: []string{"devs"}}, "team [ada@example.com devs]"},
		"link":    {api.Share{Visibility: gateway.Link}, "link [ada@example.com]"},
		"public":  {api.Share{Visibility: gateway.Public}, "public []"},
	} {
		tt.before.Port = 8000
		_, err := owner.Share(t.Context(), "blog", api.Sharing{Share: tt.before})
		gatewaytest.Must(t, err)
		id := ask(t, a, "blog", ada)
		q, err := owner.Approve(t.Context(), id)
		gatewaytest.Must(t, err)
		if q.VM != "blog" || q.Port != 8000 || q.Address != ada.Mail || !q.Proven {
			t.Errorf("%s: approved %+v", name, q)
		}
		shown, err := owner.Show(t.Context(), "blog")
		gatewaytest.Must(t, err)
		port := shown.Shares[0]
		slices.Sort(port.With)
		if got := fmt.Sprint(port.Visibility, " ", port.With); got != tt.want {
			t.Errorf("%s: the port is %q, want %q", name, got, tt.want)
		}
		m, _ := a.Directory.ByName("blog")
		if !a.People.MayOpen(ada.ID, m, 8000) && m.Visibility(8000) != gateway.Public || a.People.MayOpen(ada.ID, m, 8001) || a.People.MayOpen(ada.ID, m, 0) || a.People.MayOpen(eve.ID, m, 8000) {
			t.Errorf("%s: not exactly Ada may open exactly port 8000: %+v", name, m.Shares)
		}
		if _, err := owner.Approve(t.Context(), id); gateway.KindOf(err) != gateway.KindNotFound {
			t.Errorf("%s: approved twice: %v", name, err)
		}
	}
	if got := log.String(); strings.Count(got, "event=access.approved") != 5 || !strings.Contains(got, "person=ada@example.com") {
		t.Errorf("the log has %s", got)
	}
}

func TestRequestsOfStrangersAndTheRemoved(t *testing.T) {
	a, log := sharing(t)
	owner := a.As(api.Owner())
	ada, revoke := manager(t, a)
	typed := ask(t, a, "blog", people.Person{Mail: "new@example.com"})
	bob, _, err := a.People.Add(t.Context(), "bob@example.com", "")
	gatewaytest.Must(t, err)
	bobs, elsewhere := ask(t, a, "blog", bob), ask(t, a, "web", bob)
	if all, err := ada.Requests(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("who manages blog sees %+v, %v", all, err)
	}
	if _, err := ada.Approve(t.Context(), elsewhere); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("she approved one of another VM: %v", err)
	}
	q, err := ada.Approve(t.Context(), typed)
	gatewaytest.Must(t, err)
	if p, known := a.People.ByMail("new@example.com"); q.Proven || !known || p.Role != people.Guest {
		t.Errorf("approved %+v: %+v", q, p)
	}
	gatewaytest.Must(t, ada.Deny(t.Context(), bobs))
	m, _ := a.Directory.ByName("blog")
	if a.People.MayOpen(bob.ID, m, 8000) {
		t.Error("a denied request has opened the port")
	}
	_, err = a.People.Remove(t.Context(), bob.Mail)
	gatewaytest.Must(t, err)
	if _, err := owner.Approve(t.Context(), elsewhere); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("approved for one who is removed: %v", err)
	}
	revoke()
	if all, err := ada.Requests(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("without the right: %+v, %v", all, err)
	}
	if all, err := owner.Requests(t.Context()); err != nil || len(all) != 1 || all[0].VM != "web" {
		t.Errorf("the owner sees %+v, %v", all, err)
	}
	if got := log.String(); !strings.Contains(got, "event=access.denied") || !strings.Contains(got, "by=ada@example.com") {
		t.Errorf("the log has %s", got)
	}
}

// A full share admits nobody, and adds no guest.
func TestApprovalAtTheLimit(t *testing.T) {
	a, _ := sharing(t)
	m, _ := a.Directory.ByName("blog")
	_, err := a.Directory.Update(t.Context(), m.ID, func(m *gateway.VM) error {
		share := gateway.Share{Port: 8000, Visibility: gateway.People}
		for i := range gateway.MaxGrants {
			share.With = append(share.With, gateway.Principal(1000+i))
		}
		m.Shares = m.WithShare(share)
		return nil
	})
	gatewaytest.Must(t, err)
	id := ask(t, a, "blog", people.Person{Mail: "new@example.com"})
	if _, err := a.As(api.Owner()).Approve(t.Context(), id); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("approved: %v", err)
	}
	if _, known := a.People.ByMail("new@example.com"); known {
		t.Error("a guest was added")
	}
	if _, ok := a.Requests.ByID(id); !ok {
		t.Error("the request is gone")
	}
}
