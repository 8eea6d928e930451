package https

import (
	"net/http"
	"strings"
	"testing"

	"lodge/gateway"
)

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
