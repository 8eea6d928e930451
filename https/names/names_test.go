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

// ByDomain has *.blog.example and blog.example for blog, www.blog.example for shop.
func (all vms) ByDomain(host string) (gateway.VM, gateway.Domain, bool) {
	domains := []struct{ name, vm string }{{"blog.example", "blog"}, {"www.blog.example", "shop"}, {"*.blog.example", "blog"}, {"*.lodge.localhost", "shop"}}
	for _, d := range domains {
		if d.name == host || d.name == gateway.Wildcard(host) {
			vm, ok := all.ByName(d.vm)
			return vm, gateway.Domain{Name: d.name, Port: 3000}, ok
		}
	}
	return gateway.VM{}, gateway.Domain{}, false
}

func zone() names.Zone {
	return names.Zone{Domain: "lodge.localhost", Guests: "lodge.internal", Port: 443, Inside: []string{"s3.lodge.internal"}}
}

// FuzzRoute: a name leads to the VM that is its last label below the domain, without a port, and to
// no other; its certificate covers the name and does not depend on what exists; and names for guests,
// which are all below the guests' domain, have no route from outside.
func FuzzRoute(f *testing.F) {
	for _, host := range []string{
		"blog.lodge.localhost", "8080-blog.lodge.localhost:443", "any.blog.lodge.localhost.", "BLOG.LODGE.LOCALHOST", "lodge.localhost",
		"b.s3.lodge.internal", "blog.lodge.localhost.evil.example", "blog.shop.lodge.localhost", "80-80-blog.lodge.localhost", "8080-.lodge.localhost",
		"a.b.blog.lodge.localhost", "a.8080-blog.lodge.localhost", "any.blog.example:8443", "WWW.blog.example.", "080-blog.lodge.localhost",
		"\u212alog.lodge.localhost", "blog.lodge.localhost\x00", "blog..lodge.localhost", "[::1]:443", "blog.lodge.localhost:x", "-blog.lodge.localhost",
		"blog.lodge.internal", "8080-blog.lodge.internal", "any.blog.lodge.internal", "lodge.internal", "s3.lodge.internal", "8080-s3.lodge.internal",
		"blog.s3.lodge.internal", "s3.blog.lodge.internal", "blog.lodge.localhost.lodge.internal", "blog.lodge.internal.lodge.localhost",
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
			if rt.Custom {
				checkDomain(t, rt)
				continue
			}
			_, parent, _ := strings.Cut(rt.Host, ".")
			if rt.Subject != rt.Host && rt.Subject != parent {
				t.Errorf("%q has the certificate of %q", host, rt.Subject)
			}
			if unknown, ok := zone().Route(host, from, vms{}); !rt.Guests && (!ok || unknown.Name != rt.Name) {
				t.Errorf("%q without its VM is another name: %+v", host, unknown)
			}
			guests := strings.HasSuffix("."+rt.Host, ".lodge.internal")
			if guests && !from.Known() {
				t.Errorf("%q has a route from outside", host)
			}
			if s3 := strings.HasSuffix("."+rt.Host, ".s3.lodge.internal"); s3 != (rt.Inside != "") || guests != rt.Guests {
				t.Errorf("%q: %+v", host, rt)
			}
			if rt.IsVM() && rt.VM.Name != rt.VMName {
				t.Errorf("%q: %+v", host, rt)
			}
			if rt.IsVM() {
				checkVM(t, rt)
			}
		}
	})
}

// checkDomain: a custom domain is outside the zone, and its VM's own.
func checkDomain(t *testing.T, rt names.Route) {
	t.Helper()
	want := "blog"
	if rt.Host == "www.blog.example" {
		want = "shop"
	}
	if !strings.HasSuffix("."+rt.Host, ".blog.example") || rt.VM.Name != want || rt.Subject != rt.Host || rt.Port != 3000 || rt.Plain != want+".lodge.localhost" {
		t.Errorf("%q leads to %q: %+v", rt.Host, rt.VM.Name, rt.Name)
	}
}

func TestRouteDeep(t *testing.T) {
	label := strings.Repeat("x", 63)
	for host, want := range map[string]string{ // the certificate's name; empty: no VM has the name
		"blog.lodge.localhost":                             "lodge.localhost",
		"a.blog.lodge.localhost":                           "blog.lodge.localhost",
		"a.b.blog.lodge.localhost":                         "a.b.blog.lodge.localhost",
		"a.b.c.d.e.blog.lodge.localhost":                   "a.b.c.d.e.blog.lodge.localhost",
		"80-a.b.blog.lodge.localhost":                      "80-a.b.blog.lodge.localhost",
		label + ".b.blog.lodge.localhost":                  label + ".b.blog.lodge.localhost",
		label + "x.b.blog.lodge.localhost":                 "",
		"a..blog.lodge.localhost":                          "",
		".blog.lodge.localhost":                            "",
		"a.b.shop.blog.lodge.localhost":                    "a.b.shop.blog.lodge.localhost",
		"a.b.80-blog.lodge.localhost":                      "",
		"a.b.nope.lodge.localhost":                         "",
		strings.Repeat("a.", 120) + "blog.lodge.localhost": "",
	} {
		rt, _ := zone().Route(host, gateway.Identity{}, vms{"blog"})
		if ok := rt.IsVM(); ok != (want != "") || ok && (rt.Subject != want || rt.VM.Name != "blog" || rt.Port != gateway.DefaultPort || rt.Deep != (want == host && strings.Count(host, ".") > 2)) {
			t.Errorf("%q: %+v; want the certificate of %q", host, rt, want)
		}
	}
}

func checkVM(t *testing.T, rt names.Route) {
	t.Helper()
	domain := ".lodge.localhost"
	if rt.Guests {
		domain = ".lodge.internal"
	}
	labels := strings.Split(strings.TrimSuffix(rt.Host, domain), ".")
	last := labels[len(labels)-1]
	port := ""
	if i := strings.IndexByte(last, '-'); len(labels) == 1 && i > 0 && strings.Trim(last[:i], "0123456789") == "" {
		port, last = last[:i], last[i+1:]
	}
	if rt.VM.Name != last || rt.Plain != last+domain {
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
		{"https://blog.lodge.internal", "blog.lodge.localhost", false},
		{"https://blog.lodge.localhost", "blog.lodge.internal", false},
		{"https://8080-blog.lodge.internal", "blog.lodge.internal", true},
		{"https://blog.example:8443", "blog.lodge.localhost", true},
		{"https://a.b.blog.lodge.localhost", "any.blog.example", true},
		{"https://www.blog.example", "any.blog.example", false}, // shop's, within blog's wildcard
		{"https://www.blog.example", "shop.lodge.localhost", true},
		{"http://blog.example", "blog.example", false},
		{"null", "blog.lodge.localhost", false},
		{"", "blog.lodge.localhost", false},
	} {
		rt, ok := zone().Route(tt.host, gateway.Identity{ID: gateway.ID{1}}, vms{"blog", "shop"})
		if got := zone().SameVM(tt.from, rt, vms{"blog", "shop"}); !ok || got != tt.want {
			t.Errorf("%q on the VM of %q: %t, want %t", tt.from, tt.host, got, tt.want)
		}
	}
}

// The guests' domain has the same names as the public one, for guests only. S3's name and those below
// it come first, and URLs for people stay in the public domain.
func TestGuestsDomain(t *testing.T) {
	blog := gateway.Identity{ID: gateway.ID{1}, Name: "blog"}
	for host, want := range map[string]names.Name{
		"blog.lodge.internal":      {Subject: "lodge.internal", VMName: "blog", Plain: "blog.lodge.internal"},
		"8080-blog.lodge.internal": {Subject: "lodge.internal", VMName: "blog", Plain: "blog.lodge.internal", Port: 8080},
		"any.shop.lodge.internal":  {Subject: "shop.lodge.internal", VMName: "shop", Plain: "shop.lodge.internal"},
		"s3.lodge.internal":        {Subject: "s3.lodge.internal", Inside: "s3.lodge.internal"},
		"blog.s3.lodge.internal":   {Subject: "s3.lodge.internal", Inside: "s3.lodge.internal"},
	} {
		want.Host, want.Guests = host, true
		if rt, ok := zone().Route(host, blog, vms{"blog", "shop"}); !ok || rt.Name != want {
			t.Errorf("%s: %+v, %t; want %+v", host, rt.Name, ok, want)
		}
		if rt, ok := zone().Route(host, gateway.Identity{}, vms{"blog", "shop"}); ok {
			t.Errorf("%s from outside: %+v", host, rt)
		}
	}
	for _, host := range []string{"absent.lodge.internal", "metadata.lodge.internal", "gateway.lodge.internal", "8080-s3.lodge.internal", "x.8080-blog.lodge.internal"} {
		if rt, ok := zone().Route(host, blog, vms{"blog", "shop"}); ok {
			t.Errorf("%s: %+v", host, rt)
		}
	}
	if got := zone().URL("blog", 8080); got != "https://8080-blog.lodge.localhost" {
		t.Errorf("the URL for people is %s", got)
	}
}
