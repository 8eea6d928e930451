package https_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"lodge/https"
)

// Config.Root has paths of the domain itself. On the names of VMs, the same paths are the VMs' own.
func TestRootHandlers(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *https.Config) {
		c.Root = map[string]http.Handler{"/.well-known/x": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "of the host") // the client sees it
		})}
	})
	s.app(s.vm("blog", public(0)...), 80, echo("of the VM"))
	s.vm("private")
	root := strings.Replace(s.url("root"), "root.", "", 1)
	for url, want := range map[string]int{
		root + "/.well-known/x":               http.StatusOK,
		root + "/.well-known/x?q":             http.StatusOK,
		root + "/.well-known/x/":              http.StatusNotFound,
		root + "/.well-known/":                http.StatusNotFound,
		root + "/":                            http.StatusOK,
		s.url("blog") + "/.well-known/x":      http.StatusOK,
		s.url("private") + "/.well-known/x":   http.StatusUnauthorized,
		s.url("8000-blog") + "/.well-known/x": http.StatusUnauthorized,
	} {
		a := s.get(s.client(), url)
		ofHost := a.StatusCode == http.StatusOK && a.body == "of the host"
		if a.StatusCode != want || ofHost != (url == root+"/.well-known/x" || url == root+"/.well-known/x?q") || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %s %q %v", url, a.Status, a.body, a.Header)
		}
	}
}
