package api_test

import (
	"reflect"
	"testing"

	"lodge/gateway"
	"lodge/gateway/api"
	"lodge/gateway/gatewaytest"
)

// allowedVMs are the verbs that a VM may use on itself. A VM may use none on the host or on another VM.
var allowedVMs = map[string]bool{"Show": true}

// newAPI has a directory and nothing else: a verb that passes its check for permission panics.
func newAPI(t *testing.T, names ...string) *api.API {
	t.Helper()
	var vms []gateway.VM
	for _, name := range names {
		vms = append(vms, gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running})
	}
	directory := gatewaytest.NewDirectory(t, &gatewaytest.Records{}, vms...)
	return api.New(api.Config{Directory: directory, Keyring: gateway.NewKeyring([32]byte{1}, directory)})
}

// call calls a verb with name for each string argument and zero values for the others. passed: it got beyond the check.
func call(t *testing.T, s api.Session, verb reflect.Method, name string) (err error, passed bool) {
	t.Helper()
	defer func() { passed = passed || recover() != nil }()
	in := []reflect.Value{reflect.ValueOf(s), reflect.ValueOf(t.Context())}
	for i := 2; i < verb.Type.NumIn(); i++ {
		arg := reflect.New(verb.Type.In(i)).Elem()
		if arg.Kind() == reflect.String {
			arg.SetString(name)
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
	}
	verbs := reflect.TypeFor[api.Session]()
	if verbs.NumMethod() < 29 {
		t.Errorf("only %d verbs", verbs.NumMethod())
	}
	for name, c := range callers {
		for verb := range verbs.Methods() {
			if err, passed := call(t, a.As(c.caller), verb, c.on); passed != c.may[verb.Name] {
				t.Errorf("%s, %s: passed %v (%v), want %v", name, verb.Name, passed, err, c.may[verb.Name])
			}
		}
	}
	for verb := range verbs.Methods() {
		if err, passed := call(t, a.As(api.Owner()), verb, "blog"); !passed {
			t.Errorf("the owner, %s: %v", verb.Name, err)
		}
	}
}
