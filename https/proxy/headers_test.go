package proxy

import (
	"net/http"
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
	f.Fuzz(func(t *testing.T, name, value string) {
		h := http.Header{name: {value}, "Kept": {"1"}}
		stripIdentityHeaders(h)
		for left := range h {
			cgi := strings.ToUpper(strings.ReplaceAll(left, "-", "_")) // as RFC 3875 servers read it
			if strings.HasPrefix(cgi, "X_LODGE_") || strings.HasPrefix(cgi, "X_FORWARDED_") || cgi == "FORWARDED" || cgi == "X_REAL_IP" {
				t.Errorf("%q is left", left)
			}
		}
		if len(h["Kept"]) == 0 {
			t.Error("another header was lost")
		}
	})
}
