// Package oidc proves mail addresses by providers of OpenID Connect, which the configuration names.
//
// Begin sends a browser to a provider: authorization code flow with PKCE (S256), a nonce, and a state
// that is bound to the browser by a cookie, works once and lasts ten minutes. Finish exchanges the code
// that comes back for an ID token, checks it, and returns the address in it, if the provider has
// verified the address. What else a provider sends has no other effect, and is not stored: sessions
// last without it.
//
// A provider is asked at the first login. One that is slow, gone or sends too much fails the logins
// through it within seconds, and no others. Nothing here redirects to an address that a visitor chose.
package oidc

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"lodge/gateway"
	"lodge/https/login/browser"
)

// Prefix is that of the paths to which providers send browsers back: CallbackPath.
const Prefix = "/.lodge/oidc/"

const (
	stateLife     = 10 * time.Minute
	discoveryLife = time.Hour
	maxBodyBytes  = 1 << 20 // of a provider's answer
	maxParamBytes = 4 << 10 // of a code or an error
)

// Provider is one of the configuration.
type Provider struct {
	Name     string   // shown to people, and a part of the callback's path: lower-case letters, digits and dashes
	Issuer   string   // its URL, byte by byte as its ID tokens have it
	ClientID string   // of this host there
	Secret   string   // of the client; empty for a public client
	Domains  []string // of the mail addresses that may log in through it; none: all
}

// Config is what a Handler needs.
type Config struct {
	Origin    string // of the host's own pages: https://<domain>, with a port unless it is 443
	Providers []Provider
	Logger    *slog.Logger
	Now       func() time.Time // nil means time.Now
	// Client makes the requests to providers; nil means one with the system's roots.
	Client *http.Client
	// Timeout is how long a provider may take to answer one request; 0 means 10 s.
	Timeout time.Duration
}

// Handler sends browsers to providers and takes them back. It is safe for concurrent use; make one
// with New.
type Handler struct {
	Config
	providers map[string]*provider
	pending   *browser.Pending[state]
}

// state is a login that a browser has begun.
type state struct {
	bound    string // see browser.Bind
	provider string
	nonce    string
	verifier string // PKCE
	to       string // what the browser wants to open
}

// New returns a Handler. KindInvalid: a provider cannot be used as it is configured.
func New(cfg Config) (*Handler, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	h := &Handler{Config: cfg, providers: map[string]*provider{}, pending: browser.NewPending[state](stateLife, cfg.Now)}
	if err := Check(cfg.Providers); err != nil {
		return nil, err
	}
	for _, p := range cfg.Providers {
		h.providers[p.Name] = newProvider(p, h)
	}
	return h, nil
}

// Check reports what is wrong with the configuration of providers.
func Check(all []Provider) error {
	seen := map[string]bool{}
	for _, p := range all {
		if err := p.check(); err != nil {
			return err
		}
		if seen[p.Name] {
			return gateway.Invalid("there are two login providers named %q", p.Name).WithHint("Give each a name of its own.")
		}
		seen[p.Name] = true
	}
	return nil
}

func (p Provider) check() error {
	if p.Name == "" || len(p.Name) > 32 || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return gateway.Invalid("a login provider is named %q", p.Name).WithHint("Use up to 32 lower-case letters, digits and dashes.")
	}
	u, err := url.Parse(p.Issuer)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || !secure(u) {
		return gateway.Invalid("the issuer of login provider %q is %q", p.Name, p.Issuer).
			WithHint("Give the https URL that the provider's documentation calls issuer, such as https://accounts.example.com.")
	}
	if p.ClientID == "" {
		return gateway.Invalid("login provider %q has no client_id", p.Name).WithHint("Register this host at the provider, which then shows one.")
	}
	for _, domain := range p.Domains {
		if domainOf(domain) == "" {
			return gateway.Invalid("login provider %q has the domain %q", p.Name, domain).WithHint("Give domains of mail addresses, such as example.com.")
		}
	}
	return nil
}

// domainOf returns a domain as addresses have it; empty for what is none.
func domainOf(domain string) string {
	address, err := Address("x@" + domain)
	if err != nil || strings.Contains(domain, "@") {
		return ""
	}
	return strings.TrimPrefix(address, "x@")
}

// secure reports whether nobody on the way can read or change what is sent to u. Plain HTTP is that
// for this machine alone.
func secure(u *url.URL) bool {
	return u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
}

// Names returns the names of the providers, in the configuration's order.
func (h *Handler) Names() []string {
	names := make([]string, 0, len(h.Providers))
	for _, p := range h.Providers {
		names = append(names, p.Name)
	}
	return names
}

// CallbackPath is the path to which a provider sends browsers back. Each has its own, so that the
// answer of one is never taken for that of another.
func CallbackPath(name string) string { return Prefix + name }

// Begin returns the URL of a provider where a browser logs in, and binds what comes back to the
// browser. to is kept for Finish, unread. With again the provider is asked to prove the person anew, though
// they are logged in there (prompt=login, OpenID Connect Core 1.0 §3.1.2.1). Errors: KindNotFound for an
// unknown provider, KindDenied for a request that a page elsewhere has sent, KindUnavailable when the
// provider does not answer or the visitor has begun too many logins.
func (h *Handler) Begin(w http.ResponseWriter, r *http.Request, name, to string, again bool) (string, error) {
	p := h.providers[name]
	if p == nil {
		return "", errUnknown()
	}
	if !browser.SameOrigin(r) {
		return "", browser.ErrElsewhere()
	}
	if len(to) > maxParamBytes {
		to = ""
	}
	key := browser.NewSecret()
	s := state{
		bound: browser.Bind(w, r, stateLife), provider: name, nonce: browser.NewSecret(), verifier: oauth2.GenerateVerifier(), to: to,
	}
	if err := h.pending.Add(key, browser.Peer(r), s); err != nil { // before the provider is asked: that can take long
		return "", err
	}
	found, err := p.discover(r.Context())
	if err != nil {
		return "", h.gone(r.Context(), p, "discovery", err)
	}
	if again {
		return found.authURL(key, s, oauth2.SetAuthURLParam("prompt", "login")), nil
	}
	return found.authURL(key, s), nil
}

// Finish takes a browser back from a provider. It returns the mail address that the provider has
// verified, normalised, and Begin's to. Errors: KindDenied when anything is not as it must be,
// KindUnavailable when the provider does not answer. The state is used, whatever comes of it.
func (h *Handler) Finish(r *http.Request, name string) (address, to string, err error) {
	p := h.providers[name]
	if p == nil {
		return "", "", errUnknown()
	}
	query := r.URL.Query()
	s, ok := h.pending.Take(query.Get("state"))
	bound, has := browser.Bound(r)
	if !ok || !has || s.bound != bound || s.provider != name {
		return "", "", gateway.Errorf(gateway.KindDenied, "this browser did not begin the login, took more than ten minutes, or keeps no cookies").
			WithHint("Try again.")
	}
	found, err := p.discover(r.Context())
	if err != nil {
		return "", s.to, h.gone(r.Context(), p, "discovery", err)
	}
	if err := found.checkAnswer(query); err != nil {
		return "", s.to, h.refused(p, err)
	}
	address, err = found.redeem(r.Context(), query.Get("code"), s)
	if err != nil {
		return "", s.to, h.failed(r.Context(), p, err)
	}
	if len(p.Domains) > 0 && !p.takes(address) {
		return "", s.to, gateway.Errorf(gateway.KindDenied, "%s may not log in through %s", address, name).WithHint("Use another account, or log in another way.")
	}
	return address, s.to, nil
}

// takes reports whether the domain of an address is one of those that may log in.
func (p Provider) takes(address string) bool {
	_, domain, _ := strings.Cut(address, "@")
	return slices.ContainsFunc(p.Domains, func(d string) bool { return domainOf(d) == domain })
}

func errUnknown() error {
	return gateway.Errorf(gateway.KindNotFound, "there is no such login provider")
}

// gone is the error for a provider that does not answer as one.
func (h *Handler) gone(ctx context.Context, p *provider, step string, err error) error {
	if ctx.Err() == nil {
		h.Logger.Warn("login provider did not answer", "host", p.Issuer, "op", step, "err", brief(err))
	}
	return gateway.Errorf(gateway.KindUnavailable, "%s does not answer", p.Name).Because(err).
		WithHint("Log in another way, or try again later. Logins that exist are not affected.")
}

// refused is the error for an answer that proves nothing.
func (h *Handler) refused(p *provider, err error) error {
	h.Logger.Warn("answer of a login provider was refused", "host", p.Issuer, "err", brief(err))
	return gateway.Errorf(gateway.KindDenied, "the login through %s failed", p.Name).Because(err).WithHint("Try again, or log in another way.")
}

func (h *Handler) failed(ctx context.Context, p *provider, err error) error {
	if isGone(err) {
		return h.gone(ctx, p, "token", err)
	}
	if e := asUnverified(err); e != nil {
		return e
	}
	return h.refused(p, err)
}
