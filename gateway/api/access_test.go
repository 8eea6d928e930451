package api_test

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/domains"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
)

// allowedVMs are the verbs that a VM may use on itself. A VM may use none on the host or on another VM.
var allowedVMs = map[string]bool{"Show": true, "Checkpoint": true, "CheckpointList": true, "RemoveCheckpoint": true}

// The verbs that people may use: on no VM in particular, and on one that was granted to them.
var (
	allowedAnyone   = map[string]bool{"List": true, "Requests": true, "MailStates": true}
	allowedMembers  = with(allowedAnyone, "New")
	allowedUsers    = with(allowedAnyone, "Show", "Wait", "Console", "Log", "SSH", "Changes", "History", "Recipe", "RecipeFile", "Credentials", "S3Usage", "NewS3Key", "Mail", "Message", "SearchMail", "MailLog", "MailQueue")
	allowedManagers = with(allowedUsers, "Start", "Stop", "Restart", "Remove", "Set", "Share", "Grant", "Access", "NewPass", "ListPasses", "RemovePass", "Login", "AddDomain", "Domains", "RemoveDomain", "Approve", "Deny",
		"Redeliver", "ChangeMailQueue", "RemoveMail", "MailSettings", "SetMail", "NewMailAddress", "MailAddresses", "RemoveMailAddress",
		"NewMailPassword", "MailPasswords", "RemoveMailPassword", "MailDNS",
		"Checkpoint", "CheckpointList", "RemoveCheckpoint", "SetCheckpointPlan", "Rollback", "SetS3Quota", "RevokeS3Keys", "GrantBucket", "BucketGrants", "CheckVMObjects")
)

func with(verbs map[string]bool, more ...string) map[string]bool {
	verbs = maps.Clone(verbs)
	for _, verb := range more {
		verbs[verb] = true
	}
	return verbs
}

// parser parses domains, and panics when it should prove one.
type parser struct{ *domains.Verifier }

func (parser) Prove(context.Context, gateway.VM, string, bool) (domains.Proof, error) {
	panic("beyond the check")
}

// newAPI has a directory, people and nothing else: a verb that passes its check for permission panics.
func newAPI(t *testing.T, names ...string) *api.API {
	t.Helper()
	var vms []gateway.VM
	for _, name := range names {
		vms = append(vms, gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running, Domains: []gateway.Domain{{Name: name + ".example.com"}}})
	}
	directory := gatewaytest.NewDirectory(t, &gatewaytest.Records{}, vms...)
	known, requests := book(t)
	return api.New(api.Config{
		Directory: directory, Keyring: gateway.NewKeyring([32]byte{1}, directory), People: known, Requests: requests, Web: web{}, Domains: parser{domains.New(domains.Config{Domain: "lodge.localhost"})}, Logger: slog.New(slog.DiscardHandler),
	})
}

func book(t testing.TB) (*people.Book, *people.Requests) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, db.Close()) })
	b, err := people.Open(t.Context(), db.Shared(), "ann@example.org")
	gatewaytest.Must(t, err)
	requests, err := people.OpenRequests(t.Context(), db.Shared(), time.Now)
	gatewaytest.Must(t, err)
	return b, requests
}

// ask makes a request for the page of a VM; one made again has the same ID.
func ask(t *testing.T, a *api.API, name string, who people.Person) string {
	t.Helper()
	m, _ := a.Directory.ByName(name)
	q, _, err := a.Requests.Add(t.Context(), gateway.AccessRequest{VM: m.ID, Port: 8000, Host: name, Person: who.ID, Address: who.Mail})
	gatewaytest.Must(t, err)
	return q.ID
}

// call calls a verb with name for each string argument, or with the ID of a request for that VM, and zero values for the others.
// passed: it got beyond the check.
func call(t *testing.T, a *api.API, as api.Caller, verb reflect.Method, name string) (err error, passed bool) {
	t.Helper()
	s := a.As(as)
	defer func() { passed = passed || recover() != nil }()
	in := []reflect.Value{reflect.ValueOf(s), reflect.ValueOf(t.Context())}
	for i := 2; i < verb.Type.NumIn(); i++ {
		arg := reflect.New(verb.Type.In(i)).Elem()
		if arg.Kind() == reflect.String {
			arg.SetString(name)
			switch verb.Name {
			case "RemoveDomain":
				arg.SetString(name + ".Example.com")
			case "Approve", "Deny":
				gatewaytest.Must(t, a.Requests.Remove(t.Context(), func(gateway.AccessRequest) bool { return true })) // one that was denied counts
				arg.SetString(ask(t, a, name, a.People.Owner()))
			}
		}
		in = append(in, arg)
	}
	out := verb.Func.Call(in)
	err, _ = out[len(out)-1].Interface().(error)
	return err, gateway.KindOf(err) != gateway.KindDenied
}

// Every verb that there is asks for permission before anything else; one that is added is denied to all but the owner.
func TestDenyIsTheDefault(t *testing.T) {
	a := newAPI(t, "blog", "web")
	blog, _ := a.Directory.ByName("blog")
	person := func(mail string, role people.Role, level gateway.Level) api.Caller {
		p, _, err := a.People.Add(t.Context(), mail, role)
		gatewaytest.Must(t, err)
		_, err = a.Directory.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Grants = m.WithGrant(p.ID, level); return nil })
		gatewaytest.Must(t, err)
		return api.PersonCaller(p.ID)
	}
	removed := person("eve@example.com", people.Owner, gateway.Manage)
	_, err := a.People.Remove(t.Context(), "eve@example.com")
	gatewaytest.Must(t, err)
	member, view := person("member@example.com", people.Member, gateway.NoLevel), person("view@example.com", people.Guest, gateway.View)
	use, manage := person("use@example.com", people.Guest, gateway.Use), person("manage@example.com", people.Guest, gateway.Manage)
	all := map[string]bool{}
	for verb := range reflect.TypeFor[api.Session]().Methods() {
		all[verb.Name] = true
	}
	callers := map[string]struct {
		caller api.Caller
		on     string
		may    map[string]bool
	}{
		"nobody":                {api.Caller{}, "blog", nil},
		"unknown VM":            {api.VMCaller(gateway.Identity{}), "blog", nil},
		"unknown VM on no VM":   {api.VMCaller(gateway.Identity{}), "absent", nil},
		"VM on another":         {api.VMCaller(blog.Identity), "web", nil},
		"VM on one that is not": {api.VMCaller(blog.Identity), "absent", nil},
		"VM on itself":          {api.VMCaller(blog.Identity), "blog", allowedVMs},
		"nobody in particular":  {api.PersonCaller(0), "blog", nil},
		"one who is removed":    {removed, "blog", nil},
		"a guest":               {view, "web", allowedAnyone},
		"a member":              {member, "web", allowedMembers},
		"who may view":          {view, "blog", allowedAnyone},
		"who may use":           {use, "blog", allowedUsers},
		"who may manage":        {manage, "blog", allowedManagers},
		"elsewhere":             {manage, "web", allowedAnyone},
		"where there is none":   {manage, "absent", allowedAnyone},
		"the operator's mail":   {manage, "postmaster", allowedAnyone},
		"another owner":         {person("owner@example.com", people.Owner, gateway.NoLevel), "blog", all},
	}
	verbs := reflect.TypeFor[api.Session]()
	if verbs.NumMethod() < 41 {
		t.Errorf("only %d verbs", verbs.NumMethod())
	}
	for name, c := range callers {
		_, err := a.Directory.Update(t.Context(), blog.ID, func(m *gateway.VM) error { m.Domains = blog.Domains; return nil }) // RemoveDomain works
		gatewaytest.Must(t, err)
		for verb := range verbs.Methods() {
			if err, passed := call(t, a, c.caller, verb, c.on); passed != c.may[verb.Name] {
				t.Errorf("%s, %s: passed %v (%v), want %v", name, verb.Name, passed, err, c.may[verb.Name])
			}
		}
	}
	for verb := range verbs.Methods() {
		if err, passed := call(t, a, api.Owner(), verb, "blog"); !passed {
			t.Errorf("the owner, %s: %v", verb.Name, err)
		}
	}
}
