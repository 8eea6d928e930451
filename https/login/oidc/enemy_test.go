package oidc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"lodge/gateway/gatewaytest"
	"lodge/https/login/oidc"
)

// enemy is a provider that can be told to do everything wrong.
type enemy struct {
	*httptest.Server
	mu        sync.Mutex
	key       *rsa.PrivateKey
	keyID     string
	challenge string                     // PKCE, of the last login
	nonce     string                     // of the last login
	claims    func(map[string]any)       // changes those of the ID token
	token     func(id string) any        // the token endpoint's answer; nil: a right one
	sign      func(claims []byte) string // nil: by the key, RS256
	discovery func(map[string]any)
	userInfo  map[string]any
	serve     http.HandlerFunc // answers everything, if not nil
}

func newEnemy(t *testing.T) *enemy {
	t.Helper()
	e := &enemy{key: keys()[0], keyID: "first"}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

// hang answers nothing from now on.
func (e *enemy) hang(t *testing.T) {
	t.Helper()
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	e.mu.Lock()
	defer e.mu.Unlock()
	e.serve = func(http.ResponseWriter, *http.Request) { <-over }
}

// keys are two, made once: that takes long.
var keys = sync.OnceValue(func() (two [2]*rsa.PrivateKey) {
	for i := range two {
		two[i], _ = rsa.GenerateKey(rand.Reader, 2048) // a nil key would fail all tests
	}
	return two
})

func (e *enemy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	serve := e.serve
	e.mu.Unlock()
	if serve != nil {
		serve(w, r)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	var answer any
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		d := map[string]any{
			"issuer": e.URL, "authorization_endpoint": e.URL + "/auth", "token_endpoint": e.URL + "/token", "jwks_uri": e.URL + "/keys",
			"userinfo_endpoint": e.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		}
		if e.discovery != nil {
			e.discovery(d)
		}
		answer = d
	case "/keys":
		answer = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: e.key.Public(), KeyID: e.keyID, Use: "sig", Algorithm: "RS256"}}}
	case "/token":
		answer = e.answer(w, r)
	case "/userinfo":
		answer = e.userInfo
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// answer is that of the token endpoint.
func (e *enemy) answer(w http.ResponseWriter, r *http.Request) any {
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if id, secret, _ := r.BasicAuth(); r.FormValue("code") != "code" || base64.RawURLEncoding.EncodeToString(sum[:]) != e.challenge || id != "lodge" || secret != "secret" {
		w.WriteHeader(http.StatusBadRequest)
		return map[string]string{"error": "invalid_grant"}
	}
	c := map[string]any{
		"iss": e.URL, "aud": "lodge", "sub": "1", "nonce": e.nonce, "email": "Ann@Example.org", "email_verified": true,
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}
	if e.claims != nil {
		e.claims(c)
	}
	payload, _ := json.Marshal(c)
	sign := e.sign
	if sign == nil {
		sign = e.signed
	}
	id := sign(payload)
	if e.token != nil {
		return e.token(id)
	}
	return map[string]any{"access_token": "access", "token_type": "Bearer", "id_token": id}
}

func (e *enemy) signed(payload []byte) string {
	return signedBy(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: e.key, KeyID: e.keyID}}, payload)
}

func signedBy(key jose.SigningKey, payload []byte) string {
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return err.Error()
	}
	signature, err := signer.Sign(payload)
	if err != nil {
		return err.Error()
	}
	text, _ := signature.CompactSerialize()
	return text
}

// party is the host, as a provider and a browser see it.
type party struct {
	*oidc.Handler
	cookies map[string]string // the browser's
	again   bool              // see Begin
	log     *bytes.Buffer
}

func newParty(t *testing.T, e *enemy, change ...func(*oidc.Config)) *party {
	t.Helper()
	p := &party{cookies: map[string]string{}, log: new(bytes.Buffer)}
	cfg := oidc.Config{
		Origin: "https://lodge.localhost", Logger: slog.New(slog.NewTextHandler(p.log, nil)),
		Providers: []oidc.Provider{{Name: "example", Issuer: e.URL, ClientID: "lodge", Secret: "secret"}},
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	p.Handler, err = oidc.New(cfg)
	gatewaytest.Must(t, err)
	return p
}

func (p *party) request(ctx context.Context, method, target string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, method, "https://lodge.localhost"+target, nil)
	r.RemoteAddr = "203.0.113.7:1"
	for name, value := range p.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return r
}

// begin begins a login in the browser and returns the URL at the provider.
func (p *party) begin(ctx context.Context, name string) (*url.URL, error) {
	w := httptest.NewRecorder()
	to, err := p.Begin(w, p.request(ctx, http.MethodPost, "/"), name, "/wanted", p.again)
	for _, c := range w.Result().Cookies() {
		p.cookies[c.Name] = c.Value
	}
	if err != nil {
		return nil, err
	}
	return url.Parse(to)
}

// login goes to the provider and back, whose answer back may change.
func (p *party) login(t *testing.T, e *enemy, back func(url.Values)) (string, error) {
	t.Helper()
	at, err := p.begin(t.Context(), "example")
	if err != nil {
		return "", err
	}
	asked := at.Query()
	e.mu.Lock()
	e.nonce, e.challenge = asked.Get("nonce"), asked.Get("code_challenge")
	e.mu.Unlock()
	answer := url.Values{"state": {asked.Get("state")}, "code": {"code"}}
	if back != nil {
		back(answer)
	}
	address, to, err := p.Finish(p.request(t.Context(), http.MethodGet, oidc.CallbackPath("example")+"?"+answer.Encode()), "example")
	if err == nil && to != "/wanted" {
		t.Errorf("leads to %q", to)
	}
	if err != nil && address != "" {
		t.Errorf("%v, but the address %q", err, address)
	}
	return address, err
}
