package names_test

import (
	"net/url"
	"strings"
	"testing"

	"lodge/gateway"
)

// FuzzOrigin: whatever Origin or Referer a page sends, it is taken for one of the VM only where the host
// name of the URL, as browsers read it, is the VM's.
func FuzzOrigin(f *testing.F) {
	for _, from := range []string{
		"https://8080-blog.lodge.localhost:8443", "https://any.blog.lodge.localhost/x", "https://shop.lodge.localhost", "null", "",
		"https://blog.lodge.localhost.evil.example", "https://blog.lodge.localhost@evil.example", "https://evil.example/blog.lodge.localhost",
		"https://evil.example\\@blog.lodge.localhost", "https:blog.lodge.localhost", "//blog.lodge.localhost", "https://xblog.lodge.localhost",
	} {
		f.Add(from)
	}
	rt, _ := zone().Route("blog.lodge.localhost", gateway.Identity{}, vms{"blog", "shop"})
	f.Fuzz(func(t *testing.T, from string) {
		if !zone().SameVM(from, rt, vms{"blog", "shop"}) {
			return
		}
		u, err := url.Parse(from)
		if err != nil {
			t.Fatalf("%q is no URL: %v", from, err)
		}
		host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		label, below := strings.CutSuffix(host, "blog.lodge.localhost")
		port, isPort := strings.CutSuffix(label, "-")
		if u.Scheme != "https" || !below || label != "" && !strings.HasSuffix(label, ".") && (!isPort || strings.Trim(port, "0123456789") != "") {
			t.Errorf("%q is taken for a page of blog", from)
		}
	})
}
