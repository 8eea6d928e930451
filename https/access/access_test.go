package access_test

import (
	"cmp"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/people"
	"lodge/gateway/store"
	"lodge/https/access"
	"lodge/https/names"
)

const owner = "ann@example.org"

// vms has blog, which shares port 8080, and shop.
type vms struct{}

func (vms) ByName(name string) (gateway.VM, bool) {
	switch name {
	case "blog":
		return gateway.VM{
			Identity: gateway.Identity{ID: gateway.ID{1}, Name: name}, Shares: []gateway.Share{{Port: 8080, Visibility: gateway.Public}},
		}, true
	case "shop":
		return gateway.VM{Identity: gateway.Identity{ID: gateway.ID{2}, Name: name}}, true
	}
	return gateway.VM{}, false
}

func (all vms) ByDomain(host string) (gateway.VM, gateway.Domain, bool) {
	name, ok := map[string]string{"blog.example": "blog", "shop.example": "shop"}[host]
	vm, _ := all.ByName(name)
	return vm, gateway.Domain{Name: host, Port: 9090}, ok
}

func TestDecide(t *testing.T) {
	book, ann, eve := someone(t)
	policy := access.Policy{Zone: names.Zone{Domain: "lodge.localhost", Port: 443}, VMs: vms{}, People: book}
	blog, shop := access.Visitor{VM: gateway.Identity{ID: gateway.ID{1}}}, access.Visitor{VM: gateway.Identity{ID: gateway.ID{2}}}
	tab := []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	preflight := []string{"Access-Control-Request-Method", "POST"}
	for name, tt := range map[string]struct {
		who    access.Visitor
		host   string
		method string
		header []string
		want   access.Decision
	}{
		"a stranger":                           {access.Visitor{}, "blog", "", nil, access.DenyStranger},
		"a stranger, public":                   {access.Visitor{}, "8080-blog", "", nil, access.Allow},
		"a stranger's browser":                 {access.Visitor{}, "blog", "", tab, access.DenyStranger},
		"a stranger's browser, port":           {access.Visitor{}, "9090-blog", "", tab, access.FetchLogin},
		"an older browser, port":               {access.Visitor{}, "9090-blog", "", []string{"Accept", "text/html"}, access.FetchLogin},
		"a script, port":                       {access.Visitor{}, "9090-blog", "", []string{"Sec-Fetch-Mode", "cors"}, access.DenyStranger},
		"a frame, port":                        {access.Visitor{}, "9090-blog", "", []string{"Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, access.DenyStranger},
		"the owner":                            {access.Visitor{Person: ann}, "blog", "", nil, access.Allow},
		"another person":                       {access.Visitor{Person: eve}, "blog", "", nil, access.DenyStranger},
		"another site's page":                  {access.Visitor{CrossSite: true}, "blog", "", nil, access.DenyCrossSite},
		"another site's page, public":          {access.Visitor{CrossSite: true}, "8080-blog", "", nil, access.Allow},
		"the VM itself":                        {blog, "blog", "", nil, access.Allow},
		"another VM":                           {shop, "blog", "", nil, access.DenyVM},
		"another VM, public":                   {shop, "8080-blog", "", nil, access.Allow},
		"another VM that looks like a browser": {shop, "9090-blog", "", tab, access.DenyVM},
		"a preflight of its own page":          {access.Visitor{}, "blog", "OPTIONS", append(preflight, "Origin", "https://3000-blog.lodge.localhost"), access.Preflight},
		"a preflight of a sibling's page":      {access.Visitor{CrossSite: true}, "blog", "OPTIONS", append(preflight, "Origin", "https://shop.lodge.localhost"), access.DenyCrossSite},
		"a sibling's preflight":                {access.Visitor{}, "blog", "OPTIONS", append(preflight, "Origin", "https://shop.lodge.localhost"), access.DenyStranger},
		"a preflight of another VM":            {shop, "blog", "OPTIONS", append(preflight, "Origin", "https://3000-blog.lodge.localhost"), access.DenyVM},
		"a preflight, public":                  {access.Visitor{}, "8080-blog", "OPTIONS", append(preflight, "Origin", "https://evil.example"), access.Allow},
		"not a preflight":                      {access.Visitor{}, "blog", "POST", append(preflight, "Origin", "https://3000-blog.lodge.localhost"), access.DenyStranger},
	} {
		r := request(t, cmp.Or(tt.method, http.MethodGet), tt.header...)
		rt, ok := policy.Zone.Route(tt.host+".lodge.localhost", gateway.Identity{}, vms{})
		if got := policy.Decide(r, rt, tt.who); !ok || got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if blog, _ := (vms{}).ByName("blog"); !policy.Manages(access.Visitor{Person: ann}, blog) || policy.Manages(access.Visitor{Person: eve}, blog) || policy.Manages(access.Visitor{}, blog) {
		t.Error("not the owner manages a VM")
	}
}

// someone is a book with the owner, and with eve, who may do nothing.
func someone(t *testing.T) (book *people.Book, ann, eve gateway.Principal) {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "lodge.db"), netip.MustParsePrefix("10.213.0.0/16"))
	gatewaytest.Must(t, err)
	t.Cleanup(func() { gatewaytest.Must(t, db.Close()) })
	book, err = people.Open(t.Context(), db.Shared(), owner)
	gatewaytest.Must(t, err)
	p, _, err := book.Add(t.Context(), "eve@example.org", people.Guest)
	gatewaytest.Must(t, err)
	return book, book.Owner().ID, p.ID
}

func TestCrossSite(t *testing.T) {
	policy := access.Policy{Zone: names.Zone{Domain: "lodge.localhost", Port: 443}, VMs: vms{}}
	rt, _ := policy.Zone.Route("blog.lodge.localhost", gateway.Identity{}, vms{})
	for name, tt := range map[string]struct {
		r    *http.Request
		want bool
	}{
		"no browser":               {request(t, "POST"), false},
		"an address typed":         {request(t, "GET", "Sec-Fetch-Site", "none"), false},
		"its own page":             {request(t, "POST", "Origin", "https://blog.lodge.localhost"), false},
		"another port of the VM":   {request(t, "POST", "Origin", "https://8080-blog.lodge.localhost:8443"), false},
		"a domain of the VM":       {request(t, "POST", "Origin", "https://blog.example"), false},
		"another VM's domain":      {request(t, "POST", "Origin", "https://shop.example"), true},
		"another VM":               {request(t, "POST", "Origin", "https://shop.lodge.localhost"), true},
		"plain HTTP":               {request(t, "POST", "Origin", "http://blog.lodge.localhost"), true},
		"a sandboxed page":         {request(t, "POST", "Origin", "null"), true},
		"a link":                   {request(t, "GET", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), false},
		"a form without an origin": {request(t, "POST", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), true},
		"an image of its own VM":   {request(t, "GET", "Sec-Fetch-Site", "same-site", "Referer", "https://8080-blog.lodge.localhost/"), false},
		"an image elsewhere":       {request(t, "GET", "Sec-Fetch-Site", "same-site", "Referer", "https://shop.lodge.localhost/"), true},
	} {
		if got := policy.CrossSite(tt.r, rt); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}

func request(t *testing.T, method string, header ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}
