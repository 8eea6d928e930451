package oidc_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/https/login/oidc"
)

func TestLogin(t *testing.T) {
	e := newEnemy(t)
	p := newParty(t, e)
	if address, err := p.login(t, e, nil); err != nil || address != "ann@example.org" {
		t.Fatalf("%q, %v", address, err)
	}
	at, err := p.begin(t.Context(), "example")
	gatewaytest.Must(t, err)
	asked := at.Query()
	for name, want := range map[string]string{
		"client_id": "lodge", "response_type": "code", "scope": "openid email", "code_challenge_method": "S256",
		"redirect_uri": "https://lodge.localhost/.lodge/oidc/example",
	} {
		if asked.Get(name) != want {
			t.Errorf("%s is %q", name, asked.Get(name))
		}
	}
	p.again = true
	again, err := p.begin(t.Context(), "example")
	gatewaytest.Must(t, err)
	if asked.Has("prompt") || again.Query().Get("prompt") != "login" {
		t.Errorf("prompt: %q, and %q of who logs in again", asked["prompt"], again.Query()["prompt"])
	}
	e.mu.Lock()
	e.key, e.keyID = keys()[1], "second"
	e.mu.Unlock()
	if address, err := p.login(t, e, nil); err != nil || address != "ann@example.org" {
		t.Errorf("after a rotation of its keys: %q, %v", address, err)
	}
}

// set makes a change of claims.
func set(pairs ...any) func(map[string]any) {
	return func(c map[string]any) {
		for i := 0; i < len(pairs); i += 2 {
			c[pairs[i].(string)] = pairs[i+1]
			if pairs[i+1] == nil {
				delete(c, pairs[i].(string))
			}
		}
	}
}

func TestWhatAProviderSays(t *testing.T) {
	for name, tt := range map[string]struct {
		claims   map[string]any
		userInfo map[string]any
		ok       bool
	}{
		"another issuer":             {claims: map[string]any{"iss": "https://evil.example"}},
		"its issuer with a slash":    {claims: map[string]any{"iss": "/"}}, // completed below
		"another audience":           {claims: map[string]any{"aud": "other"}},
		"no audience":                {claims: map[string]any{"aud": nil}},
		"audiences, issued to us":    {claims: map[string]any{"aud": []string{"other", "lodge"}, "azp": "lodge"}, ok: true},
		"audiences, issued to other": {claims: map[string]any{"aud": []string{"other", "lodge"}, "azp": "other"}},
		"audiences, issued to none":  {claims: map[string]any{"aud": []string{"other", "lodge"}}},
		"issued to another":          {claims: map[string]any{"azp": "other"}},
		"another nonce":              {claims: map[string]any{"nonce": "x"}},
		"no nonce":                   {claims: map[string]any{"nonce": nil}},
		"expired":                    {claims: map[string]any{"exp": time.Now().Add(-time.Second).Unix()}},
		"no expiry":                  {claims: map[string]any{"exp": nil}},
		"not yet":                    {claims: map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}},
		"no subject":                 {claims: map[string]any{"sub": nil}},
		"a wrong at_hash":            {claims: map[string]any{"at_hash": "x"}},
		"not verified":               {claims: map[string]any{"email_verified": false}},
		"verified, as a string":      {claims: map[string]any{"email_verified": "true"}},
		"verified, as a number":      {claims: map[string]any{"email_verified": 1}},
		"no address":                 {claims: map[string]any{"email": nil}},
		"a look-alike":               {claims: map[string]any{"email": "аnn@example.org"}},
		"two addresses":              {claims: map[string]any{"email": "ann@example.org,eve@example.org"}},
		"in the user info":           {claims: map[string]any{"email": nil, "email_verified": nil}, userInfo: map[string]any{"sub": "1", "email": "ann@example.org", "email_verified": true}, ok: true},
		"there, of another":          {claims: map[string]any{"email": nil}, userInfo: map[string]any{"sub": "2", "email": "ann@example.org", "email_verified": true}},
		"there, not verified":        {claims: map[string]any{"email": nil}, userInfo: map[string]any{"sub": "1", "email": "ann@example.org"}},
		"there, as a string":         {claims: map[string]any{"email": nil}, userInfo: map[string]any{"sub": "1", "email": "ann@example.org", "email_verified": "true"}},
	} {
		e := newEnemy(t)
		p := newParty(t, e)
		if tt.claims["iss"] == "/" {
			tt.claims["iss"] = e.URL + "/"
		}
		e.claims = func(c map[string]any) {
			for name, value := range tt.claims {
				set(name, value)(c)
			}
		}
		e.userInfo = tt.userInfo
		address, err := p.login(t, e, nil)
		if ok := err == nil && address == "ann@example.org"; ok != tt.ok {
			t.Errorf("%s: %q, %v", name, address, err)
		}
		if kind := gateway.KindOf(err); err != nil && kind != gateway.KindDenied && kind != gateway.KindInvalid {
			t.Errorf("%s: %s", name, kind)
		}
	}
}

func TestWhoSigns(t *testing.T) {
	other := keys()[1]
	raw := base64.RawURLEncoding.EncodeToString
	for name, sign := range map[string]func(e *enemy, claims []byte) string{
		"nobody": func(_ *enemy, claims []byte) string { return raw([]byte(`{"alg":"none"}`)) + "." + raw(claims) + "." },
		"the client's secret, by HMAC": func(_ *enemy, claims []byte) string {
			return signedBy(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(strings.Repeat("secret", 8))}, claims)
		},
		"the public key, by HMAC": func(e *enemy, claims []byte) string {
			return signedBy(jose.SigningKey{Algorithm: jose.HS256, Key: e.key.N.Bytes()}, claims)
		},
		"another key": func(_ *enemy, claims []byte) string {
			return signedBy(jose.SigningKey{Algorithm: jose.RS256, Key: other}, claims)
		},
		"another key of that name": func(e *enemy, claims []byte) string {
			return signedBy(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: other, KeyID: e.keyID}}, claims)
		},
		"a key that it brings": func(_ *enemy, claims []byte) string {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: other}, &jose.SignerOptions{EmbedJWK: true})
			if err != nil {
				return err.Error()
			}
			s, _ := signer.Sign(claims)
			text, _ := s.CompactSerialize()
			return text
		},
		"garbage": func(*enemy, []byte) string { return "x.y.z" },
	} {
		e := newEnemy(t)
		p := newParty(t, e)
		e.sign = func(claims []byte) string { return sign(e, claims) }
		if address, err := p.login(t, e, nil); gateway.KindOf(err) != gateway.KindDenied || err == nil {
			t.Errorf("%s: %q, %v", name, address, err)
		}
	}
}

func TestWhatABrowserBringsBack(t *testing.T) {
	e := newEnemy(t)
	for name, tt := range map[string]struct {
		sendsISS bool
		back     func(url.Values)
		ok       bool
	}{
		"another state":              {back: func(q url.Values) { q.Set("state", "x") }},
		"no state":                   {back: func(q url.Values) { q.Del("state") }},
		"another code":               {back: func(q url.Values) { q.Set("code", "x") }},
		"no code":                    {back: func(q url.Values) { q.Del("code") }},
		"a code of 5 KiB":            {back: func(q url.Values) { q.Set("code", strings.Repeat("x", 5<<10)) }},
		"an error":                   {back: func(q url.Values) { q.Set("error", "access_denied") }},
		"the issuer":                 {back: func(q url.Values) { q.Set("iss", e.URL) }, ok: true},
		"another issuer":             {back: func(q url.Values) { q.Set("iss", "https://evil.example") }},
		"two issuers":                {back: func(q url.Values) { q["iss"] = []string{e.URL, "https://evil.example"} }},
		"the issuer, which it sends": {sendsISS: true, back: func(q url.Values) { q.Set("iss", e.URL) }, ok: true},
		"none, though it sends it":   {sendsISS: true},
	} {
		e.discovery = func(d map[string]any) { d["authorization_response_iss_parameter_supported"] = tt.sendsISS }
		address, err := newParty(t, e).login(t, e, tt.back)
		if (err == nil) != tt.ok || err != nil && gateway.KindOf(err) != gateway.KindDenied {
			t.Errorf("%s: %q, %v", name, address, err)
		}
	}
}

// A state is of one browser, one provider and one time.
func TestStateIsBound(t *testing.T) {
	e := newEnemy(t)
	now := time.Now()
	p := newParty(t, e, func(c *oidc.Config) {
		c.Now = func() time.Time { return now }
		second := c.Providers[0]
		second.Name = "second"
		c.Providers = append(c.Providers, second)
	})
	begun := func() string {
		at, err := p.begin(t.Context(), "example")
		gatewaytest.Must(t, err)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.nonce, e.challenge = at.Query().Get("nonce"), at.Query().Get("code_challenge")
		return at.Query().Get("state")
	}
	finish := func(cookies map[string]string, state, name string) error {
		mine := maps.Clone(p.cookies)
		defer func() { p.cookies = mine }()
		p.cookies = cookies
		_, _, err := p.Finish(p.request(t.Context(), http.MethodGet, "/?code=code&state="+state), name)
		return err
	}
	state := begun()
	if err := finish(nil, state, "example"); gateway.KindOf(err) != gateway.KindDenied || err == nil {
		t.Errorf("another browser: %v", err)
	}
	if err := finish(p.cookies, state, "example"); err == nil {
		t.Error("used again by the right one")
	}
	if err := finish(p.cookies, begun(), "second"); err == nil {
		t.Error("through another provider")
	}
	if err := finish(p.cookies, begun(), "third"); gateway.KindOf(err) != gateway.KindNotFound {
		t.Errorf("through an unknown provider: %v", err)
	}
	first := begun()
	gatewaytest.Must(t, finish(p.cookies, begun(), "example")) // two tabs
	if err := finish(p.cookies, first, "example"); err == nil {
		t.Error("the nonce of another tab was taken")
	}
	state = begun()
	now = now.Add(10 * time.Minute)
	if err := finish(p.cookies, state, "example"); err == nil {
		t.Error("after ten minutes")
	}
	r := p.request(t.Context(), http.MethodPost, "/")
	r.Header.Set("Origin", "https://blog.lodge.localhost")
	if _, err := p.Begin(httptest.NewRecorder(), r, "example", "", false); gateway.KindOf(err) != gateway.KindDenied || err == nil {
		t.Errorf("begun by a page elsewhere: %v", err)
	}
}

// A provider that is gone, slow or large fails its own logins and no others.
func TestABadProvider(t *testing.T) {
	for name, serve := range map[string]http.HandlerFunc{
		"hangs":     nil,
		"fails":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"is a page": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<h1>hello</h1>") },
		"is huge": func(w http.ResponseWriter, _ *http.Request) {
			for range 1 << 10 {
				_, _ = w.Write(make([]byte, 4<<10)) // refused at some time
			}
		},
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"names another": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"issuer":"https://evil.example"}`) },
		"leads elsewhere, in plain text": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"issuer":"http://%s","authorization_endpoint":"http://evil.example/","token_endpoint":"http://%[1]s/","jwks_uri":"http://%[1]s/"}`, r.Host)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad, good := newEnemy(t), newEnemy(t)
			if bad.serve = serve; serve == nil {
				bad.hang(t)
			}
			p := newParty(t, good, func(c *oidc.Config) {
				c.Providers = append(c.Providers, oidc.Provider{Name: "bad", Issuer: bad.URL, ClientID: "lodge"})
			})
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			failed := make(chan error, 1)
			r := p.request(ctx, http.MethodPost, "/")
			go func() {
				_, err := p.Begin(httptest.NewRecorder(), r, "bad", "", false)
				failed <- err
			}()
			if address, err := p.login(t, good, nil); err != nil {
				t.Errorf("through another: %q, %v", address, err)
			}
			if serve == nil {
				leave()
			}
			if err := <-failed; gateway.KindOf(err) != gateway.KindUnavailable || err == nil {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAProviderHasLimitedTime(t *testing.T) {
	e := newEnemy(t)
	e.hang(t)
	p := newParty(t, e, func(c *oidc.Config) { c.Timeout = 10 * time.Millisecond })
	if _, err := p.begin(t.Context(), "example"); gateway.KindOf(err) != gateway.KindUnavailable || err == nil {
		t.Errorf("%v", err)
	}
}

func TestAProviderGoesInBetween(t *testing.T) {
	e := newEnemy(t)
	p := newParty(t, e)
	at, err := p.begin(t.Context(), "example")
	gatewaytest.Must(t, err)
	e.Close()
	_, _, err = p.Finish(p.request(t.Context(), http.MethodGet, "/?code=code&state="+at.Query().Get("state")), "example")
	if gateway.KindOf(err) != gateway.KindUnavailable || err == nil {
		t.Errorf("gone in between: %v", err)
	}
}

func TestAllowedDomains(t *testing.T) {
	e := newEnemy(t)
	for domain, ok := range map[string]bool{"example.org": true, "EXAMPLE.org": true, "example.com": false, "org": false, "sub.example.org": false} {
		p := newParty(t, e, func(c *oidc.Config) { c.Providers[0].Domains = []string{domain} })
		if address, err := p.login(t, e, nil); (err == nil) != ok {
			t.Errorf("%s: %q, %v", domain, address, err)
		}
	}
}

func TestTokenEndpoint(t *testing.T) {
	for name, token := range map[string]func(id string) any{
		"no ID token": func(string) any { return map[string]any{"access_token": "a", "token_type": "Bearer"} },
		"an ID token: list": func(string) any {
			return map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": []int{1}}
		},
		"no access token": func(id string) any { return map[string]any{"id_token": id} },
		"a list":          func(string) any { return []int{1} },
		"a huge one":      func(id string) any { return map[string]any{"access_token": strings.Repeat("x", 2<<20), "id_token": id} },
	} {
		e := newEnemy(t)
		p := newParty(t, e)
		e.token = token
		if address, err := p.login(t, e, nil); err == nil || p.log.Len() > 2000 {
			t.Errorf("%s: %q, %v; logged %d bytes", name, address, err, p.log.Len())
		}
	}
}

func TestConfiguration(t *testing.T) {
	good := oidc.Provider{Name: "example", Issuer: "https://accounts.example.com", ClientID: "lodge", Domains: []string{"example.com"}}
	gatewaytest.Must(t, oidc.Check([]oidc.Provider{good}))
	for name, change := range map[string]func(*oidc.Provider){
		"a name with a slash":  func(p *oidc.Provider) { p.Name = "a/b" },
		"no name":              func(p *oidc.Provider) { p.Name = "" },
		"plain HTTP":           func(p *oidc.Provider) { p.Issuer = "http://accounts.example.com" },
		"no URL":               func(p *oidc.Provider) { p.Issuer = "accounts.example.com" },
		"a query":              func(p *oidc.Provider) { p.Issuer += "?x" },
		"no client":            func(p *oidc.Provider) { p.ClientID = "" },
		"a domain with an at":  func(p *oidc.Provider) { p.Domains = []string{"@example.com"} },
		"an address":           func(p *oidc.Provider) { p.Domains = []string{"ann@example.com"} },
		"a domain with spaces": func(p *oidc.Provider) { p.Domains = []string{"example .com"} },
	} {
		p := good
		change(&p)
		if err := oidc.Check([]oidc.Provider{p}); gateway.KindOf(err) != gateway.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := oidc.New(oidc.Config{Providers: []oidc.Provider{good, good}}); gateway.KindOf(err) != gateway.KindInvalid {
		t.Errorf("two of one name: %v", err)
	}
}

// FuzzFinish: whatever a browser brings back, it proves nothing without the provider.
func FuzzFinish(f *testing.F) {
	f.Add("code=code&state=x&iss=y")
	f.Add("error=access_denied&error_description=%00")
	h, err := oidc.New(oidc.Config{
		Origin: "https://lodge.localhost", Logger: slog.New(slog.DiscardHandler),
		Providers: []oidc.Provider{{Name: "example", Issuer: "http://127.0.0.1:1", ClientID: "lodge"}},
	})
	gatewaytest.Must(f, err)
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL.RawQuery = query
		if address, to, err := h.Finish(r, "example"); err == nil || address != "" || to != "" {
			t.Errorf("%q leads to %q as %q", query, to, address)
		}
	})
}
