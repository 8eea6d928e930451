package api_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
)

// sharing is an API whose shares and people can be changed, and its log.
func sharing(t *testing.T) (*api.API, *gatewaytest.Log) {
	t.Helper()
	a := newAPI(t, "blog", "web")
	log := &gatewaytest.Log{}
	a.Observer, a.Logger, a.Passes = &observer{}, log.Logger(), noPasses{}
	return a, log
}

// noPasses has no links and no tokens.
type noPasses struct{}

func (noPasses) Passes(context.Context, gateway.ID, gateway.PassKind) ([]gateway.Pass, error) {
	return nil, nil
}

func (noPasses) NewPass(_ context.Context, p gateway.Pass) (string, gateway.Pass, error) {
	return "", p, nil
}

func (noPasses) RemovePass(context.Context, gateway.ID, gateway.PassKind, string) error { return nil }

func (o *observer) Status(context.Context, gateway.ID) gateway.Status {
	return gateway.Status{State: "running"}
}

// Of two owners who change what they both have read, one is told; without a revision both are carried out.
func TestTwoOwnersShareAtOnce(t *testing.T) {
	a, _ := sharing(t)
	s := a.As(api.Owner())
	var both sync.WaitGroup
	var done, refused atomic.Int32
	for _, mail := range []string{"ada@example.com", "bob@example.com"} {
		both.Go(func() {
			to := api.Sharing{Share: api.Share{Port: 80, Visibility: gateway.People, With: []string{mail}}, Rev: 1}
			switch _, err := s.Share(t.Context(), "blog", to); gateway.KindOf(err) {
			case gateway.KindConflict:
				refused.Add(1)
			default:
				gatewaytest.Must(t, err)
				done.Add(1)
			}
		})
	}
	both.Wait()
	if done.Load() != 1 || refused.Load() != 1 {
		t.Errorf("%d are done, %d refused", done.Load(), refused.Load())
	}
	for _, mail := range []string{"ada@example.com", "bob@example.com"} {
		both.Go(func() {
			_, err := s.Grant(t.Context(), "blog", api.Grant{Who: mail, Level: gateway.Use})
			gatewaytest.Must(t, err)
		})
	}
	both.Wait()
	if m, _ := a.Directory.ByName("blog"); len(m.Grants) != 2 || len(m.Shares) != 1 || m.ShareRev != 3 {
		t.Errorf("the VM has %+v, %+v, revision %d", m.Grants, m.Shares, m.ShareRev)
	}
}

// A person's list has what they may open, and shows no more of it than they may know.
func TestListOfAPerson(t *testing.T) {
	a, _ := sharing(t)
	owner := a.As(api.Owner())
	_, err := owner.Share(t.Context(), "blog", api.Sharing{Share: api.Share{Port: 8000, Visibility: gateway.People, With: []string{"@example.com"}}})
	gatewaytest.Must(t, err)
	ada, _, err := a.People.Add(t.Context(), "ada@example.com", "")
	gatewaytest.Must(t, err)
	all, err := a.As(api.PersonCaller(ada.ID)).List(t.Context())
	if err != nil || len(all) != 1 || all[0].Name != "blog" || len(all[0].Shares) != 0 || all[0].Addr.IsValid() {
		t.Errorf("Ada's list: %+v, %v", all, err)
	}
	_, err = owner.Grant(t.Context(), "web", api.Grant{Who: ada.Mail, Level: gateway.Use})
	gatewaytest.Must(t, err)
	if all, err = a.As(api.PersonCaller(ada.ID)).List(t.Context()); err != nil || len(all) != 2 || !all[1].Addr.IsValid() {
		t.Errorf("with a grant: %+v, %v", all, err)
	}
}

// An owner may remove themselves, the one of the configuration may not, nor become less: there always is one.
func TestTheLastOwnerStays(t *testing.T) {
	a, _ := sharing(t)
	caller := func(p people.Person) api.Session { return a.As(api.PersonCaller(p.ID)) }
	ann := a.People.Owner()
	bob, _, err := a.People.Add(t.Context(), "bob@example.com", people.Owner)
	gatewaytest.Must(t, err)
	for _, s := range []api.Session{a.As(api.Owner()), caller(ann), caller(bob)} {
		if err := s.RemovePerson(t.Context(), ann.Mail); gateway.KindOf(err) != gateway.KindConflict {
			t.Errorf("the configured owner is removed: %v", err)
		}
		for _, role := range []string{"member", "guest"} {
			if _, err := s.AddPerson(t.Context(), ann.Mail, role); gateway.KindOf(err) != gateway.KindConflict {
				t.Errorf("the configured owner is a %s: %v", role, err)
			}
		}
	}
	gatewaytest.Must(t, caller(bob).RemovePerson(t.Context(), bob.Mail))
	if _, err := caller(bob).People(t.Context()); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("after their removal: %v", err)
	}
	if _, err := caller(ann).People(t.Context()); err != nil {
		t.Errorf("the last owner: %v", err)
	}
}

// A manager makes no login link of the owner, as whom they would act.
func TestOnlyOwnersLogOthersIn(t *testing.T) {
	a, _ := sharing(t)
	_, err := a.As(api.Owner()).Grant(t.Context(), "blog", api.Grant{Who: "ada@example.com", Level: gateway.Manage})
	gatewaytest.Must(t, err)
	ada, _ := a.People.ByMail("ada@example.com")
	if _, err := a.As(api.PersonCaller(ada.ID)).Login(t.Context(), "blog", "ann@example.org"); gateway.KindOf(err) != gateway.KindDenied {
		t.Errorf("a link of the owner: %v", err)
	}
}

func TestBadSharesChangeNothing(t *testing.T) {
	a, _ := sharing(t)
	s := a.As(api.Owner())
	many := slices.Repeat([]string{"@example.com"}, gateway.MaxGrants+1)
	for name, share := range map[string]api.Share{
		"markup":              {Visibility: gateway.People, With: []string{"<b>@example.com"}},
		"a look-alike":        {Visibility: gateway.People, With: []string{"\u0430da@example.com"}},
		"300 bytes":           {Visibility: gateway.People, With: []string{strings.Repeat("a", 300) + "@example.com"}},
		"no domain":           {Visibility: gateway.People, With: []string{"@"}},
		"nobody":              {Visibility: gateway.People},
		"too many":            {Visibility: gateway.People, With: many},
		"a team as a person":  {Visibility: gateway.People, With: []string{"devs"}},
		"a person as a team":  {Visibility: gateway.Team, With: []string{"ada@example.com"}},
		"public with someone": {Visibility: gateway.Public, With: []string{"ada@example.com"}},
		"a bad last one":      {Visibility: gateway.People, With: []string{"ada@example.com", "bob@example.com", "<b>"}},
		"no visibility":       {},
		"an unknown one":      {Visibility: "magic"},
	} {
		if _, err := s.Share(t.Context(), "blog", api.Sharing{Share: share}); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, call := range map[string]func() error{
		"a bad address in a share": func() error {
			_, err := s.Share(t.Context(), "blog", api.Sharing{Share: api.Share{Visibility: gateway.People, With: []string{"ada@example.com", "<b>@x.org"}}})
			return err
		},
		"no grant": func() error {
			_, err := s.Grant(t.Context(), "blog", api.Grant{Who: "ada@example.com", Level: "none"})
			return err
		},
		"a bad member": func() error {
			_, err := s.ChangeTeam(t.Context(), "devs", []string{"ada@example.com", "<b>@x.org"}, nil)
			return err
		},
		"no team to remove from": func() error {
			_, err := s.ChangeTeam(t.Context(), "devs", []string{"ada@example.com"}, []string{"ann@example.org"})
			return err
		},
	} {
		if err := call(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if m, _ := a.Directory.ByName("blog"); len(m.Shares) != 0 || len(a.People.All()) != 1 {
		t.Errorf("something was changed: %+v, %+v", m.Shares, a.People.All())
	}
}

// Only the VM of the link decides whether somebody with an address of its domain becomes a guest.
func TestALinkAdmitsToItsOwnVMAlone(t *testing.T) {
	a, _ := sharing(t)
	s := a.As(api.Owner())
	_, err := s.Share(t.Context(), "blog", api.Sharing{Share: api.Share{Visibility: gateway.People, With: []string{"@example.com"}}})
	gatewaytest.Must(t, err)
	for _, name := range []string{"web", "absent"} {
		if _, err := s.PersonLink(t.Context(), "ada@example.com", name, false); gateway.KindOf(err) != gateway.KindNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	if all := a.People.All(); len(all) != 1 {
		t.Errorf("somebody was added: %+v", all)
	}
}

func TestBadPassesAreRefused(t *testing.T) {
	a, _ := sharing(t)
	s := a.As(api.Owner())
	for name, tt := range map[string]struct {
		kind gateway.PassKind
		spec api.PassSpec
		want gateway.Kind
	}{
		"no kind":               {"", api.PassSpec{}, gateway.KindInvalid},
		"a session":             {"session", api.PassSpec{}, gateway.KindInvalid},
		"for a second":          {gateway.TokenPass, api.PassSpec{Life: time.Second}, gateway.KindInvalid},
		"for ever":              {gateway.TokenPass, api.PassSpec{Life: 367 * 24 * time.Hour}, gateway.KindInvalid},
		"of the past":           {gateway.TokenPass, api.PassSpec{Life: -time.Hour}, gateway.KindInvalid},
		"two lines":             {gateway.TokenPass, api.PassSpec{Label: "a\nb"}, gateway.KindInvalid},
		"a long label":          {gateway.TokenPass, api.PassSpec{Label: strings.Repeat("a", 65)}, gateway.KindInvalid},
		"too many uses":         {gateway.LinkPass, api.PassSpec{MaxUses: 1001}, gateway.KindInvalid},
		"less than none":        {gateway.LinkPass, api.PassSpec{MaxUses: -1}, gateway.KindInvalid},
		"to a port that is not": {gateway.LinkPass, api.PassSpec{Port: 80}, gateway.KindConflict},
	} {
		if _, err := s.NewPass(t.Context(), "blog", tt.kind, tt.spec); gateway.KindOf(err) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each change of who may do what is recorded, with who did it.
func TestChangesAreRecorded(t *testing.T) {
	a, log := sharing(t)
	s := a.As(api.Owner())
	for _, step := range []struct {
		event gateway.AuditEvent
		do    func() error
	}{
		{gateway.EventPersonAdded, func() error { _, err := s.AddPerson(t.Context(), "ada@example.com", "member"); return err }},
		{gateway.EventPersonChanged, func() error { _, err := s.AddPerson(t.Context(), "ada@example.com", "guest"); return err }},
		{gateway.EventTeamChanged, func() error {
			_, err := s.ChangeTeam(t.Context(), "devs", []string{"ada@example.com"}, nil)
			return err
		}},
		{gateway.EventGranted, func() error {
			_, err := s.Grant(t.Context(), "blog", api.Grant{Who: "devs", Level: gateway.View})
			return err
		}},
		{gateway.EventShared, func() error {
			_, err := s.Share(t.Context(), "blog", api.Sharing{Share: api.Share{Port: 80, Visibility: gateway.Public}})
			return err
		}},
		{gateway.EventTeamRemoved, func() error { return s.RemoveTeam(t.Context(), "devs") }},
		{gateway.EventPersonRemoved, func() error { return s.RemovePerson(t.Context(), "ada@example.com") }},
	} {
		before := log.Count("by=ann@example.org")
		gatewaytest.Must(t, step.do())
		if log.Count("event="+string(step.event)) != 1 || log.Count("by=ann@example.org") != before+1 {
			t.Errorf("%s is not recorded once:\n%s", step.event, log)
		}
	}
	for range 2 { // adds, and changes nothing
		_, err := s.AddPerson(t.Context(), "bob@example.com", "guest")
		gatewaytest.Must(t, err)
	}
	_, err := s.ChangeTeam(t.Context(), "ops", []string{"Bob@EXAMPLE.com"}, nil)
	gatewaytest.Must(t, err)
	if log.Count("event="+string(gateway.EventPersonChanged)) != 1 || log.Count("added=bob@example.com") != 1 {
		t.Errorf("what changed nothing, or a raw spelling, is recorded:\n%s", log)
	}
	if _, err := s.AddPerson(t.Context(), "ada@example.com", "king"); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("a role that is none: %v", err)
	}
}
