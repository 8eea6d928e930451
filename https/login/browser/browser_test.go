package browser

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzLocalPath: what comes out stays on the site that a browser is at.
func FuzzLocalPath(f *testing.F) {
	for _, path := range []string{"/", "/a?b=c", "//evil.example", "/\\evil.example", "https://evil.example", "/%2f/evil", "/\t/evil.example", "/a\r\nX: y"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got := LocalPath(path)
		if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") || strings.HasPrefix(got, "/\\") || strings.ContainsAny(got, "\r\n\t\x00") {
			t.Errorf("%q leads to %q", path, got)
		}
	})
}

// TestSameOrigin: what a page of a VM or of another site sends is not the host's own.
func TestSameOrigin(t *testing.T) {
	for name, tt := range map[string]struct {
		header []string
		want   bool
	}{
		"a program":            {nil, true},
		"its own page":         {[]string{"Origin", "https://lodge.localhost:8443", "Sec-Fetch-Site", "same-origin"}, true},
		"an older browser":     {[]string{"Origin", "https://lodge.localhost:8443"}, true},
		"a VM's page":          {[]string{"Origin", "https://blog.lodge.localhost:8443", "Sec-Fetch-Site", "same-site"}, false},
		"another port":         {[]string{"Origin", "https://lodge.localhost"}, false},
		"plain HTTP":           {[]string{"Origin", "http://lodge.localhost:8443"}, false},
		"another site":         {[]string{"Origin", "https://evil.example"}, false},
		"a sandbox":            {[]string{"Origin", "null"}, false},
		"without its origin":   {[]string{"Sec-Fetch-Site", "cross-site"}, false},
		"an origin that lies":  {[]string{"Origin", "https://lodge.localhost:8443", "Sec-Fetch-Site", "same-site"}, false},
		"an address typed":     {[]string{"Sec-Fetch-Site", "none"}, true},
		"a name that it is in": {[]string{"Origin", "https://lodge.localhost:8443.evil.example"}, false},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://lodge.localhost:8443/", nil)
		r.Host = "LODGE.localhost:8443"
		for i := 0; i < len(tt.header); i += 2 {
			r.Header.Set(tt.header[i], tt.header[i+1])
		}
		if got := SameOrigin(r); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestBinding: a browser is bound by its cookie, its tabs share it, and a forged one binds to nothing.
func TestBinding(t *testing.T) {
	first := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	hash := Bind(first, r, 60e9)
	if _, ok := Bound(r); ok {
		t.Error("bound without a cookie")
	}
	cookie := first.Result().Cookies()[0]
	r.AddCookie(cookie)
	second := httptest.NewRecorder()
	if again := Bind(second, r, 60e9); again != hash || second.Result().Cookies()[0].Value != cookie.Value {
		t.Error("a second tab is bound to another secret")
	}
	if got, ok := Bound(r); !ok || got != hash || strings.Contains(cookie.Value, hash) {
		t.Errorf("bound to %q, %t", got, ok)
	}
	forged := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	forged.AddCookie(&http.Cookie{Name: BindingCookie, Value: "x"})
	if got, ok := Bound(forged); ok || got != "" {
		t.Errorf("a forged cookie is bound to %q", got)
	}
}
