package proxy

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// FuzzHeaders: whatever a client sends, nothing that reads like an identity header of the gateway
// is left.
func FuzzHeaders(f *testing.F) {
	f.Add("X-Lodge-User", "evil")
	f.Add("x_LODGE_user", "evil")
	f.Add("X-Forwarded_For", "evil")
	f.Add("Forwarded", "evil")
	others := []string{
		"FORWARDED", "X_REAL_IP", "REMOTE_USER", "X_REMOTE_USER", "TRUE_CLIENT_IP", "CF_CONNECTING_IP", "X_CLIENT_IP", "X_ORIGINAL_URL", "PROXY",
	}
	for _, name := range others {
		f.Add(name, "evil")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		h := http.Header{name: {value}, "Kept": {"1"}}
		stripIdentityHeaders(h)
		for left := range h {
			cgi := strings.ToUpper(strings.ReplaceAll(left, "-", "_")) // as RFC 3875 servers read it
			if strings.HasPrefix(cgi, "X_LODGE_") || strings.HasPrefix(cgi, "X_FORWARDED_") || slices.Contains(others, cgi) {
				t.Errorf("%q is left", left)
			}
		}
		if len(h["Kept"]) == 0 {
			t.Error("another header was lost")
		}
	})
}
