package login

import (
	"net/url"
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/https/access"
	"lodge/https/names"
)

// vms has blog, with a custom domain.
type vms struct{}

func (vms) ByName(name string) (gateway.VM, bool) {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.ID{1}, Name: name}}, name == "blog"
}

func (all vms) ByDomain(host string) (gateway.VM, gateway.Domain, bool) {
	vm, _ := all.ByName("blog")
	return vm, gateway.Domain{Name: host}, host == "blog.example"
}

// FuzzEnterURL: whatever a link to the login wants to open, the browser goes to a name of a VM, to the
// path that fetches the login, and on to a path there.
func FuzzEnterURL(f *testing.F) {
	for _, wanted := range []string{
		"https://blog.lodge.localhost/a?b=c", "https://8080-blog.lodge.localhost:1/", "https://blog.example/", "https://evil.example/", "//blog.lodge.localhost/",
		"https://blog.lodge.localhost@evil.example/", "https://blog.lodge.localhost\\@evil.example", "https://blog.lodge.localhost//evil.example", "https://lodge.localhost/",
	} {
		f.Add(wanted)
	}
	zone := names.Zone{Domain: "lodge.localhost", Guests: gateway.InternalDomain, Port: 443}
	h := New(Config{Policy: access.Policy{Zone: zone, VMs: vms{}}})
	f.Fuzz(func(t *testing.T, wanted string) {
		got, ok := h.EnterURL(wanted, 8443)
		if !ok {
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.Scheme != "https" || u.User != nil || u.Port() != "8443" || u.Path != enterPath ||
			!strings.HasSuffix(u.Hostname(), ".lodge.localhost") && u.Hostname() != "blog.example" {
			t.Errorf("%q leads to %q", wanted, got)
		}
		if path := u.Query().Get("path"); !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.HasPrefix(path, Prefix) && !strings.HasPrefix(path, onPath+"?") {
			t.Errorf("%q leads to the path %q", wanted, path)
		}
	})
}
