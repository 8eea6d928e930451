package api_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/domains"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
)

// slowDomains proves every domain, and calls meanwhile.
type slowDomains struct {
	*domains.Verifier
	meanwhile func()
}

func (d slowDomains) Prove(context.Context, gateway.VM, string, bool) (domains.Proof, error) {
	d.meanwhile()
	return domains.ByTXT, nil
}

// manager is Ada, who may manage blog; revoke ends that.
func manager(t *testing.T, a *api.API) (ada api.Session, revoke func()) {
	t.Helper()
	grant := func(level gateway.Level) {
		_, err := a.As(api.Owner()).Grant(t.Context(), "blog", api.Grant{Who: "ada@example.com", Level: level})
		gatewaytest.Must(t, err)
	}
	grant(gateway.Manage)
	p, _ := a.People.ByMail("ada@example.com")
	return a.As(api.PersonCaller(p.ID)), func() { grant(gateway.NoLevel) }
}

// A right that is taken back during slow work is gone when its result is written.
func TestRightsAreAskedAtTheWrite(t *testing.T) {
	a, _ := sharing(t)
	ada, revoke := manager(t, a)
	a.Domains = slowDomains{domains.New(domains.Config{Domain: "lodge.localhost"}), revoke}
	_, err := ada.AddDomain(t.Context(), "blog", gateway.Domain{Name: "own.example.com"})
	if m, _ := a.Directory.ByName("blog"); gateway.KindOf(err) != gateway.KindDenied || len(m.Domains) != 1 {
		t.Errorf("with the right taken back: %v, %+v", err, m.Domains)
	}
}

// oneLink is a link to port 80 that a crash has left; it calls before it is removed.
type oneLink struct {
	noPasses
	removing func()
}

func (oneLink) Passes(_ context.Context, vm gateway.ID, kind gateway.PassKind) ([]gateway.Pass, error) {
	return []gateway.Pass{{ID: "0123456789abcdef", Kind: kind, VM: vm, Port: 80}}, nil
}

func (l oneLink) RemovePass(context.Context, gateway.ID, gateway.PassKind, string) error {
	l.removing()
	return nil
}

// A port that becomes open to links is never open to earlier ones.
func TestOldLinksEndBeforeThePortIsOpen(t *testing.T) {
	a, _ := sharing(t)
	ada, revoke := manager(t, a)
	visibility := func() gateway.Visibility {
		m, _ := a.Directory.ByName("blog")
		return m.Visibility(80)
	}
	var removals []gateway.Visibility
	a.Passes = oneLink{removing: func() { removals = append(removals, visibility()) }}
	link := api.Sharing{Share: api.Share{Port: 80, Visibility: gateway.Link}}
	for _, to := range []gateway.Visibility{gateway.Link, gateway.Link, gateway.Private} {
		_, err := ada.Share(t.Context(), "blog", api.Sharing{Share: api.Share{Port: 80, Visibility: to}})
		gatewaytest.Must(t, err)
	}
	if !slices.Equal(removals, []gateway.Visibility{gateway.Private, gateway.Private}) {
		t.Errorf("links were removed while the port was %q", removals)
	}
	a.Passes = oneLink{removing: revoke}
	if _, err := ada.Share(t.Context(), "blog", link); gateway.KindOf(err) != gateway.KindDenied || visibility() != gateway.Private {
		t.Errorf("with the right taken back: %v, %s", err, visibility())
	}
}

// A manager of one VM cannot fill the host's book of people.
func TestManagersLeaveRoomForPeople(t *testing.T) {
	a, _ := sharing(t)
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, db.Close()) })
	for n := 1; n < people.MaxGuests; { // what the book has stored of so many, without its answers
		var ops []gateway.Op
		for ; len(ops) < gateway.MaxCommitOps-1 && n < people.MaxGuests; n++ {
			ops = append(ops, gateway.Op{Key: fmt.Sprintf("person/%d", n), Value: fmt.Appendf(nil, `{"mail":"p%d@example.com","role":"guest"}`, n)})
		}
		_, err := db.Shared().Commit(t.Context(), nil, append(ops, gateway.Op{Key: "principal", Value: fmt.Append(nil, n)}))
		gatewaytest.Must(t, err)
	}
	a.People, err = people.Open(t.Context(), db.Shared(), "ann@example.org") // she is the last
	gatewaytest.Must(t, err)
	ada, ok := a.People.ByMail("p1@example.com")
	if a.People.Len() != people.MaxGuests || !ok {
		t.Fatalf("there are %d people", a.People.Len())
	}
	for who, may := range map[api.Caller]bool{api.PersonCaller(ada.ID): false, api.Owner(): true} {
		_, err := a.As(api.Owner()).Grant(t.Context(), "blog", api.Grant{Who: ada.Mail, Level: gateway.Manage})
		gatewaytest.Must(t, err)
		for _, mail := range []string{ada.Mail, "more@example.com"} {
			_, err := a.As(who).Share(t.Context(), "blog", api.Sharing{Share: api.Share{Visibility: gateway.People, With: []string{mail}}})
			if ok := mail == ada.Mail || may; ok != (err == nil) || !ok && gateway.KindOf(err) != gateway.KindConflict {
				t.Errorf("%v shares with %s: %v", who, mail, err)
			}
		}
		_, _ = a.People.Remove(t.Context(), "more@example.com") // nobody, but after the owner
	}
}

// The shared ports of a VM have a limit; what is shared can be changed at it.
func TestSharesHaveALimit(t *testing.T) {
	a, _ := sharing(t)
	share := func(port int, to gateway.Visibility) error {
		_, err := a.As(api.Owner()).Share(t.Context(), "blog", api.Sharing{Share: api.Share{Port: uint16(port), Visibility: to}})
		return err
	}
	for port := range gateway.MaxShares {
		gatewaytest.Must(t, share(port, gateway.Public))
	}
	if err := share(gateway.MaxShares, gateway.Public); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("one more: %v", err)
	}
	for _, err := range []error{share(gateway.MaxShares, gateway.Private), share(0, gateway.Link), share(1, gateway.Private), share(gateway.MaxShares, gateway.Public)} {
		if err != nil {
			t.Error(err)
		}
	}
}

// Programs in a VM do not see with whom it is shared.
func TestVMsSeeNoAddresses(t *testing.T) {
	a, _ := sharing(t)
	_, err := a.As(api.Owner()).Share(t.Context(), "blog", api.Sharing{Share: api.Share{Visibility: gateway.People, With: []string{"ada@example.com", "@example.org"}}})
	gatewaytest.Must(t, err)
	m, _ := a.Directory.ByName("blog")
	for caller, want := range map[api.Caller]int{api.Owner(): 2, api.VMCaller(m.Identity): 0} {
		if shown, err := a.As(caller).Show(t.Context(), "blog"); err != nil || len(shown.Shares) != 1 || len(shown.Shares[0].With) != want {
			t.Errorf("%v sees %+v, %v", caller, shown.Shares, err)
		}
	}
}

// Domains and forwarded ports open a VM too: each change is recorded.
func TestOtherWaysInAreRecorded(t *testing.T) {
	a, log := sharing(t)
	a.Domains, a.Forwarder = slowDomains{domains.New(domains.Config{Domain: "lodge.localhost"}), func() {}}, forwarder{}
	s, port := a.As(api.Owner()), gateway.HostPort{Protocol: "tcp", Port: 2222}
	_, err := s.AddDomain(t.Context(), "blog", gateway.Domain{Name: "own.example.com", Port: 80})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, s.RemoveDomain(t.Context(), "Own.example.com"))
	_, err = s.Forward(t.Context(), "blog", gateway.Forward{HostPort: port, VMPort: 22})
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, s.RemoveForward(t.Context(), port))
	for _, event := range []gateway.AuditEvent{gateway.EventDomainAdded, gateway.EventDomainRemoved, gateway.EventPortForwarded, gateway.EventForwardEnded} {
		if log.Count("event="+string(event)) != 1 {
			t.Errorf("%s is not recorded once:\n%s", event, log)
		}
	}
}

type forwarder struct{ api.Forwarder }

func (forwarder) Add(_ context.Context, f gateway.Forward) (gateway.ForwardStatus, error) {
	return gateway.ForwardStatus{Forward: f}, nil
}

func (forwarder) Remove(context.Context, gateway.HostPort) error { return nil }
