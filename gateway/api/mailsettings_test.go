package api_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/store"
)

// mailAPI is an API of the domain lodge.localhost, with its log.
func mailAPI(t *testing.T) (*api.API, *gatewaytest.Log) {
	t.Helper()
	a, log := sharing(t)
	a.Domain = "lodge.localhost"
	return a, log
}

// A change has what it names, in one form, and nothing else; the last one is shown.
func TestSetMail(t *testing.T) {
	a, log := mailAPI(t)
	s := a.As(api.Owner())
	quota, keep := int64(2<<30), int64(90*24*60*60)
	set, err := s.SetMail(t.Context(), "blog", api.MailChange{
		Receive: new(false), QuotaBytes: &quota, KeepSeconds: &keep, Wake: new(true), RefuseRejected: new(true), Route: new("http://08080/mail"), SendTo: new("anyone"),
		AllowFrom: &[]string{"@Bücher.example", "Ada@Example.COM", "ada@example.com"}, AddAliases: []string{"shop", "sales@", "info@lodge.localhost"},
	})
	gatewaytest.Must(t, err)
	want := api.MailSettings{
		VM: "blog", Domain: "blog.lodge.localhost", OwnDomains: []string{}, QuotaBytes: quota, KeepSeconds: keep, Wake: true, RefuseRejected: true, Route: "http://8080/mail", SendTo: "anyone",
		AllowFrom: []string{"@xn--bcher-kva.example", "ada@example.com"}, Aliases: []string{"info@", "sales@", "shop"}, Addresses: []api.MailAddress{},
	}
	if diff := cmp.Diff(want, set); diff != "" {
		t.Errorf("(-want +set)\n%s", diff)
	}
	m, _ := a.Directory.ByName("blog")
	record := gateway.MailSettings{
		Off: true, QuotaBytes: quota, Keep: 90 * 24 * time.Hour, Wake: true, RefuseRejected: true, Route: want.Route, SendTo: gateway.SendToAnyone, AllowFrom: want.AllowFrom, Aliases: want.Aliases,
	}
	if diff := cmp.Diff(record, m.Mail); diff != "" {
		t.Errorf("record (-want +have)\n%s", diff)
	}
	if log.Count("event=mail.set") != 1 || log.Count("added=shop,sales@,info@") != 1 || log.Count("with=@xn--bcher-kva.example,ada@example.com") != 1 {
		t.Errorf("log: %s", log)
	}
	set, err = s.SetMail(t.Context(), "blog", api.MailChange{Route: new("auto"), AllowFrom: &[]string{}, RemoveAliases: []string{"sales@lodge.localhost", "shop"}, AddAliases: []string{"info@"}})
	gatewaytest.Must(t, err)
	want.AllowFrom, want.Aliases, want.Route = []string{}, []string{"info@"}, "auto"
	if diff := cmp.Diff(want, set); diff != "" {
		t.Errorf("(-want +set again)\n%s", diff)
	}
	if got, err := s.MailSettings(t.Context(), "blog"); err != nil || !cmp.Equal(got, want) {
		t.Errorf("shown: %+v, %v", got, err)
	}
}

// What cannot be set is refused with what to do, and nothing of the change is made.
func TestSetMailRefuses(t *testing.T) {
	a, _ := mailAPI(t)
	owner := a.As(api.Owner())
	ada, _ := manager(t, a)
	_, err := owner.SetMail(t.Context(), "blog", api.MailChange{AddAliases: []string{"sales@"}})
	gatewaytest.Must(t, err)
	before, _ := a.Directory.ByName("blog")
	many := make([]string, gateway.MaxMailAllowed+1)
	for i := range many {
		many[i] = fmt.Sprintf("a%d@example.com", i)
	}
	for name, row := range map[string]struct {
		by     api.Session
		change api.MailChange
		want   gateway.Kind
	}{
		"nothing":                    {owner, api.MailChange{}, gateway.KindInvalid},
		"a route":                    {owner, api.MailChange{Route: new("pop3")}, gateway.KindInvalid},
		"quota too small":            {owner, api.MailChange{QuotaBytes: new(int64(gateway.MinMailQuota - 1))}, gateway.KindInvalid},
		"negative quota":             {owner, api.MailChange{QuotaBytes: new(int64(-1))}, gateway.KindInvalid},
		"quota too large":            {owner, api.MailChange{QuotaBytes: new(int64(gateway.MaxMailQuota + 1))}, gateway.KindInvalid},
		"kept for a second":          {owner, api.MailChange{KeepSeconds: new(int64(1))}, gateway.KindInvalid},
		"kept for too long":          {owner, api.MailChange{KeepSeconds: new(int64(1 << 62))}, gateway.KindInvalid},
		"no address":                 {owner, api.MailChange{AllowFrom: &[]string{"ada"}}, gateway.KindInvalid},
		"no domain":                  {owner, api.MailChange{AllowFrom: &[]string{"@"}}, gateway.KindInvalid},
		"a line end":                 {owner, api.MailChange{AllowFrom: &[]string{"a@b.example\r\n"}}, gateway.KindInvalid},
		"too many senders":           {owner, api.MailChange{AllowFrom: &many}, gateway.KindInvalid},
		"to nobody there is":         {owner, api.MailChange{SendTo: new("friends")}, gateway.KindInvalid},
		"to anyone by a manager":     {ada, api.MailChange{Wake: new(true), SendTo: new("anyone")}, gateway.KindDenied},
		"to known by a manager":      {ada, api.MailChange{SendTo: new("known")}, gateway.KindDenied},
		"no alias":                   {owner, api.MailChange{AddAliases: []string{"a b"}}, gateway.KindInvalid},
		"a reserved address":         {owner, api.MailChange{AddAliases: []string{"postmaster@lodge.localhost"}}, gateway.KindInvalid},
		"another domain":             {owner, api.MailChange{AddAliases: []string{"sales@example.com"}}, gateway.KindInvalid},
		"another VM's name":          {owner, api.MailChange{AddAliases: []string{"web"}}, gateway.KindTaken},
		"its own name":               {owner, api.MailChange{AddAliases: []string{"blog"}}, gateway.KindTaken},
		"an alias it has not":        {owner, api.MailChange{RemoveAliases: []string{"info@"}}, gateway.KindNotFound},
		"a good one and a bad":       {owner, api.MailChange{Wake: new(true), AddAliases: []string{"shop", "web"}}, gateway.KindTaken},
		"an address by a manager":    {ada, api.MailChange{Wake: new(true), AddAliases: []string{"info@"}}, gateway.KindDenied},
		"the whole one by a manager": {ada, api.MailChange{AddAliases: []string{"info@lodge.localhost"}}, gateway.KindDenied},
	} {
		_, err := row.by.SetMail(t.Context(), "blog", row.change)
		if gateway.KindOf(err) != row.want || api.ErrorOf(err).Hint == "" {
			t.Errorf("%s: %v (%q), want %s", name, err, api.ErrorOf(err).Hint, row.want)
		}
		if m, _ := a.Directory.ByName("blog"); !cmp.Equal(m.Mail, before.Mail) {
			t.Fatalf("%s: the record has changed to %+v", name, m.Mail)
		}
	}
	if _, err := ada.SetMail(t.Context(), "blog", api.MailChange{AddAliases: []string{"sales@", "shop"}}); err != nil {
		t.Errorf("a name by a manager: %v", err)
	}
	if _, err := ada.SetMail(t.Context(), "blog", api.MailChange{RemoveAliases: []string{"sales@"}}); err != nil {
		t.Errorf("a manager removes an address: %v", err)
	}
}

// An address is made for its senders and its time, listed, and removed, with or without its domain.
func TestMailAddresses(t *testing.T) {
	a, log := mailAPI(t)
	ada, _ := manager(t, a)
	long, err := ada.NewMailAddress(t.Context(), "blog", api.MailAddressSpec{From: []string{"@Shop.example"}, Label: "the shop"})
	gatewaytest.Must(t, err)
	short, err := ada.NewMailAddress(t.Context(), "blog", api.MailAddressSpec{From: []string{"a@shop.example"}, Life: time.Hour})
	gatewaytest.Must(t, err)
	if left := time.Until(long.Expires); left < api.DefaultMailLife-time.Minute || left > api.DefaultMailLife || !slices.Equal(long.From, []string{"@shop.example"}) {
		t.Errorf("made %+v", long)
	}
	all, err := ada.MailAddresses(t.Context(), "blog")
	if diff := cmp.Diff([]api.MailAddress{short, long}, all); diff != "" || err != nil {
		t.Errorf("listed: %v %s", err, diff)
	}
	local, domain, _ := strings.Cut(long.Address, "@")
	m, _ := a.Directory.ByName("blog")
	if domain != "blog.lodge.localhost" || !m.Mail.Accepts(local, "x@shop.example", time.Now()) || m.Mail.Accepts(local, "x@evil.example", time.Now()) {
		t.Errorf("the record has %+v", m.Mail)
	}
	for _, id := range []string{local, strings.ToUpper(short.Address)} {
		gatewaytest.Must(t, ada.RemoveMailAddress(t.Context(), "blog", id))
		if err := ada.RemoveMailAddress(t.Context(), "blog", id); gateway.KindOf(err) != gateway.KindNotFound {
			t.Errorf("removed twice: %v", err)
		}
	}
	if all, err := ada.MailAddresses(t.Context(), "blog"); err != nil || all == nil || len(all) != 0 {
		t.Errorf("after the removal: %v, %v", all, err)
	}
	if m, _ := a.Directory.ByName("blog"); m.Mail.Accepts(local, "x@shop.example", time.Now()) {
		t.Error("a removed address accepts mail")
	}
	if log.Count("event=mail.address.made") != 2 || log.Count("event=mail.address.removed") != 2 {
		t.Errorf("log: %s", log)
	}
}

func TestMailAddressesHaveLimits(t *testing.T) {
	a, _ := mailAPI(t)
	s := a.As(api.Owner())
	from := []string{"@shop.example"}
	for name, spec := range map[string]api.MailAddressSpec{
		"no senders": {}, "no address": {From: []string{"shop"}}, "too short": {From: from, Life: time.Second}, "negative": {From: from, Life: -time.Hour},
		"too long": {From: from, Life: gateway.MaxMailLife + time.Second}, "two lines": {From: from, Label: "a\nb"},
		"long label": {From: from, Label: strings.Repeat("x", gateway.MaxLabelBytes+1)},
	} {
		if _, err := s.NewMailAddress(t.Context(), "blog", spec); gateway.KindOf(err) != gateway.KindInvalid || api.ErrorOf(err).Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	blog, _ := a.Directory.ByName("blog")
	_, err := a.Directory.Update(t.Context(), blog.ID, func(m *gateway.VM) error { // one that has expired
		m.Mail.Addresses = []gateway.MailAddress{{Local: gateway.NewMailLocal(), From: from, Expires: time.Now().Add(-time.Second)}}
		return nil
	})
	gatewaytest.Must(t, err)
	if all, err := s.MailAddresses(t.Context(), "blog"); err != nil || len(all) != 0 {
		t.Errorf("an expired one is listed: %v, %v", all, err)
	}
	for range gateway.MaxMailAddresses {
		_, err := s.NewMailAddress(t.Context(), "blog", api.MailAddressSpec{From: from})
		gatewaytest.Must(t, err)
	}
	if _, err := s.NewMailAddress(t.Context(), "blog", api.MailAddressSpec{From: from}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("one more: %v", err)
	}
	many := make([]string, gateway.MaxMailAllowed)
	for i := range many {
		many[i] = fmt.Sprintf("a%d@example.com", i)
	}
	for range gateway.MaxMailSenders / gateway.MaxMailAllowed {
		_, err = s.NewMailAddress(t.Context(), "web", api.MailAddressSpec{From: many})
		gatewaytest.Must(t, err)
	}
	if _, err := s.NewMailAddress(t.Context(), "web", api.MailAddressSpec{From: from}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("one sender more in an address: %v", err)
	}
	if _, err := s.SetMail(t.Context(), "web", api.MailChange{AllowFrom: &from}); gateway.KindOf(err) != gateway.KindConflict {
		t.Errorf("one sender more in the list: %v", err)
	}
}

// Of VMs that take an alias at once, and of new ones with that name, exactly one gets it, in the file as well.
func TestMailAliasRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lodge.db")
	open := func() (*store.Store, *gateway.Directory) {
		db, err := store.Open(t.Context(), path, netip.MustParsePrefix("10.213.0.0/16"))
		gatewaytest.Must(t, err)
		d, err := gateway.OpenDirectory(t.Context(), db)
		gatewaytest.Must(t, err)
		return db, d
	}
	db, directory := open()
	known, requests := book(t)
	a := api.New(api.Config{Directory: directory, People: known, Requests: requests, Domain: "lodge.localhost", Logger: new(gatewaytest.Log).Logger()})
	add := func(name string) error {
		_, err := directory.Create(t.Context(), gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running})
		return err
	}
	results := make([]error, 20)
	for i := range results {
		gatewaytest.Must(t, add(fmt.Sprint("vm", i)))
	}
	var all sync.WaitGroup
	for i := range results {
		all.Go(func() {
			if i%5 == 0 {
				results[i] = add("shop")
				return
			}
			_, results[i] = a.As(api.Owner()).SetMail(t.Context(), fmt.Sprint("vm", i), api.MailChange{AddAliases: []string{"shop"}})
		})
	}
	all.Wait()
	taken := slices.DeleteFunc(slices.Clone(results), func(err error) bool { return gateway.KindOf(err) != gateway.KindTaken })
	if len(taken) != len(results)-1 || !slices.Contains(results, nil) {
		t.Errorf("results: %v", results)
	}
	gatewaytest.Must(t, db.Close())
	db, directory = open()
	defer db.Close()
	holders := 0
	for _, m := range directory.All() {
		if m.Name == "shop" || slices.Contains(m.Mail.Aliases, "shop") {
			holders++
		}
	}
	if holders != 1 {
		t.Errorf("%d VMs have it after reopening", holders)
	}
}

// Changes of one VM at once are all made.
func TestMailChangesAtOnce(t *testing.T) {
	a, _ := mailAPI(t)
	s := a.As(api.Owner())
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			_, err := s.SetMail(t.Context(), "blog", api.MailChange{AddAliases: []string{fmt.Sprint("shop", i)}})
			if err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if _, err := s.NewMailAddress(t.Context(), "blog", api.MailAddressSpec{From: []string{"@shop.example"}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if m, _ := a.Directory.ByName("blog"); len(m.Mail.Aliases) != 10 || len(m.Mail.Addresses) != 10 {
		t.Errorf("%d aliases, %d addresses", len(m.Mail.Aliases), len(m.Mail.Addresses))
	}
}
