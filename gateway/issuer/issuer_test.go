package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// audience is what most tests ask for.
const audience = "https://vault.example/v1?a=b&c"

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = at
}

func (c *clock) add(d time.Duration) { c.set(c.now().Add(d)) }

// site is an Issuer behind a server with TLS, as strangers reach it.
type site struct {
	*Issuer
	clock  *clock
	log    *gatewaytest.Log
	server *httptest.Server
	a, b   gateway.VM
}

func newSite(tb testing.TB, dir string) *site {
	tb.Helper()
	s := &site{clock: &clock{at: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)}, log: new(gatewaytest.Log), a: newVM("alpha"), b: newVM("beta")}
	s.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, ok := s.Handlers()[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	tb.Cleanup(s.server.Close)
	s.Issuer = s.open(tb, dir)
	return s
}

// open returns another Issuer with the clock and the URL of s, as after a restart.
func (s *site) open(tb testing.TB, dir string) *Issuer {
	tb.Helper()
	i, err := New(Config{URL: s.server.URL, Dir: dir, Host: "rack1", Logger: s.log.Logger()})
	gatewaytest.Must(tb, err)
	i.now = s.clock.now
	return i
}

func newVM(name string) gateway.VM {
	return gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: name}, Desired: gateway.Running, Incarnation: 3}
}

func (s *site) issue(tb testing.TB, vm gateway.VM) Token {
	tb.Helper()
	token, err := s.Issue(tb.Context(), vm, audience, 0)
	gatewaytest.Must(tb, err)
	return token
}

// relyingParty is an unmodified verifier, with the clock of the test.
func (s *site) relyingParty(tb testing.TB, wantedAudience string) (*oidc.IDTokenVerifier, context.Context) {
	tb.Helper()
	ctx := oidc.ClientContext(tb.Context(), s.server.Client())
	provider, err := oidc.NewProvider(ctx, s.server.URL)
	gatewaytest.Must(tb, err)
	return provider.VerifierContext(ctx, &oidc.Config{ClientID: wantedAudience, Now: s.clock.now}), ctx
}

func (s *site) get(tb testing.TB, method, path string) (*http.Response, string) {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), method, s.server.URL+path, nil)
	gatewaytest.Must(tb, err)
	resp, err := s.server.Client().Do(r)
	gatewaytest.Must(tb, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	gatewaytest.Must(tb, err)
	return resp, string(body)
}

func TestVerifierAccepts(t *testing.T) {
	s := newSite(t, t.TempDir())
	token := s.issue(t, s.a)
	verifier, ctx := s.relyingParty(t, audience)
	got, err := verifier.Verify(ctx, token.JWT)
	gatewaytest.Must(t, err)
	if want := "vm:" + s.a.ID.String(); got.Subject != want || got.Issuer != s.server.URL || len(got.Audience) != 1 || got.Audience[0] != audience {
		t.Errorf("%+v, want the subject %s", got, want)
	}
	if !got.IssuedAt.Equal(s.clock.now()) || !got.Expiry.Equal(token.Expires) || token.Expires.Sub(got.IssuedAt) != DefaultLifetime {
		t.Errorf("from %v to %v", got.IssuedAt, got.Expiry)
	}
	var more struct {
		ID        string `json:"jti"`
		NotBefore int64  `json:"nbf"`
		Lodge     own    `json:"lodge"`
	}
	gatewaytest.Must(t, got.Claims(&more))
	if diff := cmp.Diff(own{"alpha", "rack1", 3}, more.Lodge); diff != "" || more.ID == "" || more.NotBefore > got.IssuedAt.Unix() {
		t.Errorf("jti %q, nbf %d %s", more.ID, more.NotBefore, diff)
	}
	if line := s.log.String(); !strings.Contains(line, audience) || !strings.Contains(line, more.ID) || s.log.Count("identity token issued") != 1 {
		t.Errorf("the log: %s", line)
	}
	if log := s.log.String(); strings.Contains(log, token.JWT) || strings.Contains(log, token.JWT[strings.LastIndexByte(token.JWT, '.')+1:]) {
		t.Errorf("the log has the token: %s", log)
	}
}

// A token is of use for its audience, at its issuer, and until it expires.
func TestVerifierRefuses(t *testing.T) {
	s := newSite(t, t.TempDir())
	other := newSite(t, t.TempDir())
	token := s.issue(t, s.a).JWT
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	of := func(vm gateway.VM) string { return strings.Split(s.issue(t, vm).JWT, ".")[1] }
	verify := func(at *site, audience, token string, after time.Duration) error {
		verifier, ctx := at.relyingParty(t, audience)
		at.clock.add(after)
		defer at.clock.add(-after)
		_, err := verifier.Verify(ctx, token)
		return err
	}
	gatewaytest.Must(t, verify(s, audience, token, DefaultLifetime-time.Second))
	for name, tt := range map[string]struct {
		at              *site
		audience, token string
		after           time.Duration
		want            string
	}{
		"another audience": {s, "https://other.example", token, 0, "expected audience"},
		"a part of it":     {s, audience[:10], token, 0, "expected audience"},
		"another issuer":   {other, audience, token, 0, "signature"},
		"expired":          {s, audience, token, DefaultLifetime + time.Second, "expired"},
		"another VM's":     {s, audience, header + "." + of(s.b) + "." + signature, 0, "signature"},
		"no signature":     {s, audience, header + "." + payload + ".", 0, "signature"},
		"no algorithm":     {s, audience, encode([]byte(`{"alg":"none"}`)) + "." + payload + ".", 0, "signature algorithm"},
		"HMAC":             {s, audience, encode([]byte(`{"alg":"HS256"}`)) + "." + payload + "." + signature, 0, "signature algorithm"},
	} {
		if err := verify(tt.at, tt.audience, tt.token, tt.after); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	ctx := oidc.ClientContext(t.Context(), s.server.Client())
	renamed := oidc.NewVerifier("https://other.example", oidc.NewRemoteKeySet(ctx, s.server.URL+keysPath), &oidc.Config{ClientID: audience, Now: s.clock.now})
	if _, err := renamed.Verify(ctx, token); err == nil || !strings.Contains(err.Error(), "issued by a different provider") {
		t.Errorf("the same keys at another issuer: %v", err)
	}
}

func TestSubjects(t *testing.T) {
	s := newSite(t, t.TempDir())
	again := newVM(s.a.Name) // a new VM with the name of one that was removed
	verifier, ctx := s.relyingParty(t, audience)
	seen := map[string]string{}
	for _, vm := range []gateway.VM{s.a, s.b, again} {
		got, err := verifier.Verify(ctx, s.issue(t, vm).JWT)
		gatewaytest.Must(t, err)
		if before := seen[got.Subject]; before != "" {
			t.Errorf("%s has the subject of %s", vm.Name, before)
		}
		seen[got.Subject] = vm.Name
	}
}

func TestImpossibleRequests(t *testing.T) {
	s := newSite(t, t.TempDir())
	for name, tt := range map[string]struct {
		audience string
		lifetime time.Duration
	}{
		"none":         {"", 0},
		"too long":     {strings.Repeat("a", 256), 0},
		"a space":      {"a b", 0},
		"a line break": {"a\n", 0},
		"not ASCII":    {"ä", 0},
		"deleted":      {"a\x7f", 0},
		"for too long": {"a", time.Hour + time.Second},
		"in the past":  {"a", -time.Second},
		"no second":    {"a", time.Millisecond},
	} {
		if _, err := s.Issue(t.Context(), s.a, tt.audience, tt.lifetime); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, audience := range []string{"a", strings.Repeat("a", 255), "//iam.googleapis.com/projects/1/x", `<"&'>\`} {
		if _, err := s.Issue(t.Context(), s.a, audience, time.Hour); err != nil {
			t.Errorf("%q: %v", audience, err)
		}
	}
}

// A VM that asks for 10,000 tokens at once gets its share, with one key, and takes none of another's.
func TestCrowdAtTheFirstUse(t *testing.T) {
	s := newSite(t, t.TempDir())
	var mu sync.Mutex
	counts := map[string]int{}
	kids := map[string]bool{}
	var asking sync.WaitGroup
	for range 10000 {
		asking.Go(func() {
			token, err := s.Issue(t.Context(), s.a, audience, 0)
			mu.Lock()
			defer mu.Unlock()
			counts[fmt.Sprint(err)]++
			if err == nil {
				kids[strings.Split(token.JWT, ".")[0]] = true
			}
		})
	}
	asking.Wait()
	if diff := cmp.Diff(map[string]int{"<nil>": burst, ErrTooMany.Error(): 10000 - burst}, counts); diff != "" || len(kids) != 1 {
		t.Errorf("%d keys %s", len(kids), diff)
	}
	s.issue(t, s.b)
	s.clock.add(time.Second)
	for range perSecond {
		s.issue(t, s.a)
	}
	if _, err := s.Issue(t.Context(), s.a, audience, 0); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v", err)
	}
	gatewaytest.Must(t, s.Remove(t.Context(), s.a.ID))
	if n := s.rates.Kept(); n != 1 {
		t.Errorf("%d buckets stay", n)
	}
}

func TestDocuments(t *testing.T) {
	s := newSite(t, t.TempDir())
	for _, path := range []string{discoveryPath, keysPath} {
		resp, body := s.get(t, http.MethodGet, path)
		h := resp.Header
		if resp.StatusCode != http.StatusOK || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "public, max-age=3600" ||
			h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Set-Cookie") != "" {
			t.Errorf("%s: %s %v", path, resp.Status, h)
		}
		for _, private := range []string{`"d"`, `"p"`, `"q"`} {
			if strings.Contains(body, private) {
				t.Errorf("%s has a private member: %s", path, body)
			}
		}
		if resp, body := s.get(t, http.MethodHead, path); resp.StatusCode != http.StatusOK || body != "" {
			t.Errorf("HEAD %s: %s %q", path, resp.Status, body)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			if resp, _ := s.get(t, method, path); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %s", method, path, resp.Status)
			}
		}
	}
}

// The property: whatever audience a VM asks for, it is refused, or the token has exactly it, and a
// verifier of another audience refuses the token.
func FuzzAudience(f *testing.F) {
	s := newSite(f, f.TempDir())
	verifier, ctx := s.relyingParty(f, "https://mine.example")
	provider, err := oidc.NewProvider(ctx, s.server.URL)
	gatewaytest.Must(f, err)
	for _, audience := range []string{"", "sts.amazonaws.com", `","sub":"vm:x`, "a\x00b", "ü", "https://mine.example/", "\xff", `["a","b"]`, "</script>"} {
		f.Add(audience)
	}
	f.Fuzz(func(t *testing.T, audience string) {
		token, err := s.Issue(t.Context(), newVM("one"), audience, 0)
		if err != nil {
			if gateway.KindOf(err) != gateway.KindInvalid {
				t.Error(err)
			}
			return
		}
		got, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: audience, Now: s.clock.now}).Verify(ctx, token.JWT)
		if err != nil || len(got.Audience) != 1 || got.Audience[0] != audience || !strings.HasPrefix(got.Subject, "vm:") {
			t.Errorf("%q: %+v, %v", audience, got, err)
		}
		if _, err := verifier.Verify(ctx, token.JWT); err == nil && audience != "https://mine.example" {
			t.Errorf("%q was accepted for another audience", audience)
		}
	})
}

// BenchmarkIssue issues tokens at the rate of one CPU, without the limit per VM.
func BenchmarkIssue(b *testing.B) {
	s := newSite(b, b.TempDir())
	_, err := s.publish()
	gatewaytest.Must(b, err)
	for b.Loop() {
		s.rates.Remove(s.a.ID)
		s.issue(b, s.a)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
