package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"
)

// provider is a Provider with what is known of it.
type provider struct {
	Provider
	client   *http.Client
	redirect string
	now      func() time.Time

	asking singleflight.Group
	mu     sync.Mutex
	found  *discovered
	until  time.Time // of found
}

// discovered is what a provider has published of itself.
type discovered struct {
	*provider
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
	op       *oidc.Provider
	sendsISS bool // RFC 9207
}

// metadata is what go-oidc does not read (OpenID Connect Discovery 1.0 §3, RFC 9207 §3).
type metadata struct {
	AuthURL     string   `json:"authorization_endpoint"`
	TokenURL    string   `json:"token_endpoint"`
	KeysURL     string   `json:"jwks_uri"`
	UserInfoURL string   `json:"userinfo_endpoint"`
	AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	SendsISS    bool     `json:"authorization_response_iss_parameter_supported"`
}

func newProvider(p Provider, h *Handler) *provider {
	client := http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
	}}
	if h.Client != nil {
		client = *h.Client
	}
	client.Timeout = h.Timeout // with the body
	client.Transport = bounded{client.Transport}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &provider{Provider: p, client: &client, redirect: h.Origin + CallbackPath(p.Name), now: h.Now}
}

// discover returns what the provider publishes. It is asked once by all that wait for it, and again
// after an hour.
func (p *provider) discover(ctx context.Context) (*discovered, error) {
	p.mu.Lock()
	found, until := p.found, p.until
	p.mu.Unlock()
	if found != nil && p.now().Before(until) {
		return found, nil
	}
	asked := p.asking.DoChan("", func() (any, error) {
		found, err := p.ask(context.WithoutCancel(ctx)) // others wait for it too; the client has a timeout
		if err == nil {
			p.mu.Lock()
			p.found, p.until = found, p.now().Add(discoveryLife)
			p.mu.Unlock()
		}
		return found, err
	})
	select {
	case answer := <-asked:
		return answer.Val.(*discovered), answer.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *provider) ask(ctx context.Context) (*discovered, error) {
	op, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.Issuer)
	if err != nil {
		return nil, err
	}
	var m metadata
	if err := op.Claims(&m); err != nil {
		return nil, err
	}
	endpoints := []string{m.AuthURL, m.TokenURL, m.KeysURL}
	if m.UserInfoURL != "" {
		endpoints = append(endpoints, m.UserInfoURL)
	}
	for _, endpoint := range endpoints {
		if u, err := url.Parse(endpoint); err != nil || u.Host == "" || !secure(u) {
			return nil, fmt.Errorf("the provider has the endpoint %.200q", endpoint)
		}
	}
	endpoint := op.Endpoint()
	endpoint.AuthStyle = authStyle(p.Secret, m.AuthMethods)
	return &discovered{
		provider: p, op: op, sendsISS: m.SendsISS,
		oauth: oauth2.Config{
			ClientID: p.ClientID, ClientSecret: p.Secret, Endpoint: endpoint, RedirectURL: p.redirect,
			Scopes: []string{oidc.ScopeOpenID, oidc.ScopeEmail},
		},
		verifier: op.Verifier(&oidc.Config{ClientID: p.ClientID, Now: p.now}),
	}, nil
}

// authStyle is how the client authenticates: by HTTP Basic, the default, unless the provider takes the
// secret in the form alone (OpenID Connect Discovery 1.0 §3, token_endpoint_auth_methods_supported). To
// try one after the other would send the code twice.
func authStyle(secret string, supported []string) oauth2.AuthStyle {
	basic := len(supported) == 0 || slices.Contains(supported, "client_secret_basic")
	if secret == "" || !basic && slices.Contains(supported, "client_secret_post") {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader
}

// bounded limits the bodies of answers.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	next := b.next
	if next == nil {
		next = http.DefaultTransport
	}
	res, err := next.RoundTrip(r)
	if err == nil {
		res.Body = http.MaxBytesReader(nil, res.Body, maxBodyBytes)
	}
	return res, err
}

// isGone reports whether err is that of a provider which does not answer, or not as HTTP servers do.
func isGone(err error) bool {
	if answered, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return answered.Response != nil && answered.Response.StatusCode >= http.StatusInternalServerError
	}
	_, request := errors.AsType[*url.Error](err)
	_, tooLarge := errors.AsType[*http.MaxBytesError](err)
	return request || tooLarge || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// brief is an error for the log, without what a provider has sent at length.
func brief(err error) error {
	const most = 300
	if answered, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		err = fmt.Errorf("the token endpoint answered %q", answered.ErrorCode)
	}
	if text := err.Error(); len(text) > most {
		return errors.New(text[:most] + "…")
	}
	return err
}
