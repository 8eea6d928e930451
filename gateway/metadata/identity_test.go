package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// put asks for a token as m.
func (h *host) put(m gateway.VM, query string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(gateway.WithVM(context.Background(), m.Identity), http.MethodPut, "http://169.254.169.254"+identityPath, nil)
	r.URL.RawQuery = query
	for _, header := range append(headers, "Lodge-Request: 1") {
		name, value, _ := strings.Cut(header, ": ")
		if name == "Host" {
			r.Host = value
		} else if r.Header.Get(name) == "" {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, r)
	return w
}

// verify is an unmodified relying party.
func (h *host) verify(t *testing.T, audience, token string) *oidc.IDToken {
	t.Helper()
	mux := http.NewServeMux()
	for path, handler := range h.Issuer.Handlers() {
		mux.Handle(path, handler)
	}
	server := httptest.NewServer(mux)
	defer server.Close()
	keys := oidc.NewRemoteKeySet(t.Context(), server.URL+"/.well-known/jwks.json")
	got, err := oidc.NewVerifier(h.Issuer.URL, keys, &oidc.Config{ClientID: audience}).Verify(t.Context(), token)
	gatewaytest.Must(t, err)
	return got
}

func TestIdentityToken(t *testing.T) {
	h := newHost(t)
	for _, m := range []gateway.VM{h.a, h.b} {
		w := h.put(m, "audience=https%3A%2F%2Fservice.example%2F%3Fa%26b&lifetime=120")
		var answer IdentityToken
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		got := h.verify(t, "https://service.example/?a&b", answer.Token)
		if got.Subject != "vm:"+m.ID.String() || !got.Expiry.Equal(answer.ExpiresAt) || got.Expiry.Sub(got.IssuedAt) != 2*time.Minute {
			t.Errorf("%+v for %+v", got, m.Identity)
		}
		if log := h.log.String(); strings.Contains(log, answer.Token) || !strings.Contains(log, "audience=https://service.example/?a&b ") {
			t.Errorf("the log: %s", log)
		}
	}
	w := h.put(h.a, "audience=x", "Accept: text/plain, application/JWT;q=0.9")
	if got := h.verify(t, "x", w.Body.String()); w.Header().Get("Content-Type") != "application/jwt" || got.Expiry.Sub(got.IssuedAt) != 10*time.Minute {
		t.Errorf("%+v %v", got, w.Header())
	}
}

func TestIdentityTokenRefused(t *testing.T) {
	h := newHost(t)
	long := strings.Repeat("a", 256)
	for _, tt := range []struct {
		query, header string
		status        int
		text          string
	}{
		{"", "", 400, "?audience="},
		{"audience=", "", 400, "0 bytes"},
		{"audience=a&audience=b", "", 400, "audience is given twice"},
		{"audience=" + long, "", 400, "256 bytes"},
		{"audience=a+b", "", 400, "printable ASCII"},
		{"audience=%C3%A4", "", 400, "printable ASCII"},
		{"audience=a%0d%0aX:y", "", 400, "printable ASCII"},
		{"audience=%zz", "", 400, "malformed"},
		{"audience=a;lifetime=3", "", 400, "malformed"},
		{"audience=a&vm=beta", "", 400, `"vm"`},
		{"audience=a&sub=beta", "", 400, `"sub"`},
		{"audience=a&lifetime=3601", "", 400, "1 to 3600"},
		{"audience=a&lifetime=0", "", 400, "1 to 3600"},
		{"audience=a&lifetime=-1", "", 400, "1 to 3600"},
		{"audience=a&lifetime=10m", "", 400, "in seconds"},
		{"audience=a&lifetime=", "", 400, "in seconds"},
		{"audience=a&lifetime=1&lifetime=2", "", 400, "lifetime is given twice"},
		{"audience=a", "Lodge-Request: 0", 403, "Lodge-Request"},
		{"audience=a", "X-Forwarded-For: 192.0.2.1", 403, "proxy"},
		{"audience=a", "Forwarded: for=192.0.2.1", 403, "proxy"},
		{"audience=a", "Via: 1.1 x", 403, "proxy"},
		{"audience=a", "Host: evil.example", 421, "metadata service"},
	} {
		if w := h.put(h.a, tt.query, tt.header); w.Code != tt.status || !strings.Contains(w.Body.String(), tt.text) {
			t.Errorf("%q %q: %d %s", tt.query, tt.header, w.Code, w.Body)
		}
	}
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS"} {
		if w := h.ask(h.a, method, identityPath, "Lodge-Request: 1"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "PUT" {
			t.Errorf("%s: %d %v", method, w.Code, w.Header())
		}
	}
	stranger := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "alpha"}}
	if w := h.put(stranger, "audience=a"); w.Code != http.StatusForbidden {
		t.Errorf("a stranger: %d %s", w.Code, w.Body)
	}
	if strings.Contains(h.log.String(), "identity token issued") {
		t.Errorf("the log: %s", h.log.String())
	}
}

// A VM that is being removed gets no token, though its connections are still open.
func TestNoIdentityTokenDuringRemoval(t *testing.T) {
	h := newHost(t)
	_, err := h.Directory.Update(t.Context(), h.a.ID, func(m *gateway.VM) error {
		m.Desired = gateway.Removed
		return nil
	})
	gatewaytest.Must(t, err)
	if w := h.put(h.a, "audience=a"); w.Code != http.StatusForbidden {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := h.put(h.b, "audience=a"); w.Code != http.StatusOK {
		t.Errorf("the other VM: %d %s", w.Code, w.Body)
	}
}

func TestTooManyIdentityTokens(t *testing.T) {
	h := newHost(t)
	got := map[string]int{}
	for range 1000 {
		w := h.put(h.a, "audience=a")
		got[fmt.Sprintf("%d retry after %q", w.Code, w.Header().Get("Retry-After"))]++
	}
	if got[`200 retry after ""`] < 50 || got[`429 retry after "1"`] < 500 || len(got) != 2 {
		t.Errorf("got %v", got)
	}
	if w := h.put(h.b, "audience=a"); w.Code != http.StatusOK {
		t.Errorf("the other VM: %d %s", w.Code, w.Body)
	}
}
