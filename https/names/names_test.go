package names_test

import (
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/https/names"
)

// vms has the VMs whose names it lists.
type vms []string

func (all vms) ByName(name string) (gateway.VM, bool) {
	for n, one := range all {
		if one == name {
			return gateway.VM{Identity: gateway.Identity{ID: gateway.ID{byte(n + 1)}, Number: uint32(n + 1), Name: name}}, true
		}
	}
	return gateway.VM{}, false
}

func zone() names.Zone {
	return names.Zone{Domain: "lodge.localhost", Port: 443, Inside: []string{"s3.lodge.internal"}}
}

// FuzzRoute: a name leads to the VM that is its last label below the domain, without a port, and to
// no other; its certificate covers the name; and names for guests have no route from outside.
func FuzzRoute(f *testing.F) {
	for _, host := range []string{
		"blog.lodge.localhost", "8080-blog.lodge.localhost:443", "any.blog.lodge.localhost.", "BLOG.LODGE.LOCALHOST", "lodge.localhost",
		"b.s3.lodge.internal", "blog.lodge.localhost.evil.example", "blog.shop.lodge.localhost", "80-80-blog.lodge.localhost", "8080-.lodge.localhost",
		"\u212alog.lodge.localhost", "blog.lodge.localhost\x00", "blog..lodge.localhost", "[::1]:443", "blog.lodge.localhost:x", "-blog.lodge.localhost",
	} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		for _, from := range []gateway.Identity{{}, {ID: gateway.ID{1}}} {
			rt, ok := zone().Route(host, from, vms{"blog", "shop"})
			if !ok {
				continue
			}
			want := strings.ToLower(host)
			want, _, _ = strings.Cut(want, ":")
			want = strings.TrimSuffix(want, ".")
			if rt.Host != want {
				t.Fatalf("%q is routed as %q", host, rt.Host)
			}
			_, parent, _ := strings.Cut(rt.Host, ".")
			if rt.Subject != rt.Host && rt.Subject != parent {
				t.Errorf("%q has the certificate of %q", host, rt.Subject)
			}
			if subject, ok := zone().Parse(rt.Subject); !ok || subject.Subject != rt.Subject || subject.VMName != "" && subject.VMName != rt.VMName {
				t.Errorf("%q has a certificate that cannot exist: %+v", host, subject)
			}
			if rt.Inside != "" && !from.Known() {
				t.Errorf("%q has a route from outside", host)
			}
			if rt.IsVM() != (rt.VMName != "") {
				t.Errorf("%q: %+v", host, rt)
			}
			if rt.IsVM() {
				checkVM(t, rt)
			}
		}
	})
}

func checkVM(t *testing.T, rt names.Route) {
	t.Helper()
	labels := strings.Split(strings.TrimSuffix(rt.Host, ".lodge.localhost"), ".")
	last := labels[len(labels)-1]
	port := ""
	if i := strings.IndexByte(last, '-'); len(labels) == 1 && i > 0 && strings.Trim(last[:i], "0123456789") == "" {
		port, last = last[:i], last[i+1:]
	}
	if rt.VM.Name != last || rt.Plain != last+".lodge.localhost" {
		t.Errorf("%q leads to %q, plain name %q", rt.Host, rt.VM.Name, rt.Plain)
	}
	if (port == "") != (rt.Port == gateway.DefaultPort) {
		t.Errorf("%q leads to port %d", rt.Host, rt.Port)
	}
}

func TestSameVM(t *testing.T) {
	for _, tt := range []struct {
		from, host string
		want       bool
	}{
		{"https://8080-blog.lodge.localhost:8443/x", "blog.lodge.localhost", true},
		{"https://any.BLOG.lodge.localhost", "8080-blog.lodge.localhost", true},
		{"https://shop.lodge.localhost", "blog.lodge.localhost", false},
		{"http://blog.lodge.localhost", "blog.lodge.localhost", false},
		{"https://lodge.localhost", "blog.lodge.localhost", false},
		{"https://lodge.localhost", "lodge.localhost", false},
		{"https://blog.lodge.localhost.evil.example", "blog.lodge.localhost", false},
		{"null", "blog.lodge.localhost", false},
		{"", "blog.lodge.localhost", false},
	} {
		name, ok := zone().Parse(tt.host)
		if got := zone().SameVM(tt.from, name); !ok || got != tt.want {
			t.Errorf("%q on the VM of %q: %t, want %t", tt.from, tt.host, got, tt.want)
		}
	}
}
