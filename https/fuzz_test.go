package https

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"lodge/gateway"
)

// fuzzSite is a Server as far as routing needs one.
func fuzzSite(f *testing.F) *Server {
	f.Helper()
	dir, err := gateway.OpenDirectory(f.Context(), records{})
	if err != nil {
		f.Fatal(err)
	}
	return &Server{Config: Config{
		Domain: "lodge.localhost", Directory: dir, Owner: "ann@example.org",
		Inside: map[string]http.Handler{"s3.lodge.internal": http.NotFoundHandler()},
	}}
}

// records has two VMs.
type records struct{ gateway.Records }

func (records) VMs(context.Context) ([]gateway.VM, error) {
	return []gateway.VM{
		{Identity: gateway.Identity{ID: gateway.ID{1}, Number: 1, Name: "blog"}, Desired: gateway.Running},
		{Identity: gateway.Identity{ID: gateway.ID{2}, Number: 2, Name: "shop"}, Desired: gateway.Running},
	}, nil
}

// FuzzRoute: a name leads to the VM that is its last label below the domain, without a port, and to no other; its
// certificate covers the name; and what is only for guests is never given to others.
func FuzzRoute(f *testing.F) {
	s := fuzzSite(f)
	for _, host := range []string{
		"blog.lodge.localhost", "8080-blog.lodge.localhost:443", "any.blog.lodge.localhost.", "BLOG.LODGE.LOCALHOST", "lodge.localhost",
		"b.s3.lodge.internal", "blog.lodge.localhost.evil.example", "blog.shop.lodge.localhost", "80-80-blog.lodge.localhost", "8080-.lodge.localhost",
		"\u212alog.lodge.localhost", "blog.lodge.localhost\x00", "blog..lodge.localhost", "[::1]:443", "blog.lodge.localhost:x", "-blog.lodge.localhost",
	} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		for _, from := range []gateway.Identity{{}, {ID: gateway.ID{1}}} {
			rt, ok := s.route(host, from)
			if !ok {
				continue
			}
			want := strings.ToLower(host)
			want, _, _ = strings.Cut(want, ":")
			want = strings.TrimSuffix(want, ".")
			if rt.host != want {
				t.Fatalf("%q is routed as %q", host, rt.host)
			}
			_, parent, _ := strings.Cut(rt.host, ".")
			if rt.subject != rt.host && rt.subject != parent {
				t.Errorf("%q has the certificate of %q", host, rt.subject)
			}
			if !s.hasLeaf(rt.subject) {
				t.Errorf("%q has a certificate that cannot be: %q", host, rt.subject)
			}
			if rt.inside != nil && !from.Known() {
				t.Errorf("%q is given to outsiders", host)
			}
			if rt.isVM() {
				checkVM(t, rt)
			}
		}
	})
}

func checkVM(t *testing.T, rt route) {
	t.Helper()
	labels := strings.Split(strings.TrimSuffix(rt.host, ".lodge.localhost"), ".")
	last := labels[len(labels)-1]
	port := ""
	if i := strings.IndexByte(last, '-'); len(labels) == 1 && i > 0 && strings.Trim(last[:i], "0123456789") == "" {
		port, last = last[:i], last[i+1:]
	}
	if rt.vm.Name != last {
		t.Errorf("%q leads to %q", rt.host, rt.vm.Name)
	}
	if (port == "") != (rt.port == gateway.DefaultPort) {
		t.Errorf("%q leads to port %d", rt.host, rt.port)
	}
}

// FuzzHeaders: whatever a client sends, nothing that reads like a header or cookie of ours is left, and other cookies are.
func FuzzHeaders(f *testing.F) {
	f.Add("X-Lodge-User", "evil", "a=1; __Host-lodge=x; b=2")
	f.Add("x_LODGE_user", "evil", "__Host-lodge=x")
	f.Add("X-Forwarded_For", "evil", " __Host-lodge-hop = x ;;; c")
	f.Add("Forwarded", "evil", "\"__Host-lodge\"=x; __host-LODGE=y")
	f.Fuzz(func(t *testing.T, name, value, cookies string) {
		h := http.Header{name: {value}, "Cookie": {cookies, "last=1"}, "Kept": {"1"}}
		stripOurs(h)
		stripCookies(h)
		for left := range h {
			cgi := strings.ToUpper(strings.ReplaceAll(left, "-", "_")) // as RFC 3875 servers read it
			if strings.HasPrefix(cgi, "X_LODGE_") || strings.HasPrefix(cgi, "X_FORWARDED_") || cgi == "FORWARDED" || cgi == "X_REAL_IP" {
				t.Errorf("%q is left", left)
			}
		}
		for _, c := range (&http.Request{Header: h}).Cookies() {
			if c.Name == sessionCookie || c.Name == hopCookie {
				t.Errorf("%q leaves %q", cookies, h["Cookie"])
			}
		}
		if last := h["Cookie"]; name != "Cookie" && (len(last) == 0 || last[len(last)-1] != "last=1") {
			t.Errorf("another cookie was lost: %q", last)
		}
	})
}

// FuzzLocalPath: what comes out stays on the site that a browser is at.
func FuzzLocalPath(f *testing.F) {
	for _, path := range []string{"/", "/a?b=c", "//evil.example", "/\\evil.example", "https://evil.example", "/%2f/evil", "/\t/evil.example", "/a\r\nX: y"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := localPath(path)
		if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.HasPrefix(got, "/\\") || strings.ContainsAny(got, "\r\n\t\x00") {
			t.Errorf("%q leads to %q", path, got)
		}
	})
}

// FuzzTarget: what is written of a target is read as the same, and nothing else is read as a target.
func FuzzTarget(f *testing.F) {
	f.Add(target{gateway.ID{1, 2}, 3, 80}.String())
	f.Add("x.1:80")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTarget(s)
		if err != nil {
			return
		}
		if again, err := parseTarget(got.String()); err != nil || again != got {
			t.Errorf("%q is %v, then %v %v", s, got, again, err)
		}
	})
}
