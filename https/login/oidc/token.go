package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"lodge/gateway"
)

// authURL is where a browser logs in.
func (d *discovered) authURL(key string, s state, more ...oauth2.AuthCodeOption) string {
	return d.oauth.AuthCodeURL(key, append(more, oidc.Nonce(s.nonce), oauth2.S256ChallengeOption(s.verifier))...)
}

// checkAnswer checks what a browser brings back, but for the code and the state. The parameter iss names
// who answers (RFC 9207 §2.4): a code of another provider is not sent to this one.
func (d *discovered) checkAnswer(query url.Values) error {
	iss, given := query["iss"]
	switch {
	case len(iss) > 1 || given && iss[0] != d.Issuer:
		return errors.New("the answer is of another issuer")
	case !given && d.sendsISS:
		return errors.New("the answer has no issuer, which this provider always sends")
	case query.Get("error") != "":
		return fmt.Errorf("the provider answered %.100q", query.Get("error"))
	case query.Get("code") == "" || len(query.Get("code")) > maxParamBytes:
		return errors.New("the answer has no code")
	}
	return nil
}

// claims are those that Lodge reads. email_verified is a boolean (OpenID Connect Core 1.0 §5.1): some
// providers send the string "true", which is refused as anything else that is not true.
type claims struct {
	AuthorizedParty string `json:"azp"`
	Email           string `json:"email"`
	EmailVerified   *bool  `json:"email_verified"`
}

// redeem exchanges a code for an ID token and returns the address that this proves.
func (d *discovered) redeem(ctx context.Context, code string, s state) (string, error) {
	ctx = oidc.ClientContext(ctx, d.client)
	token, err := d.oauth.Exchange(ctx, code, oauth2.VerifierOption(s.verifier))
	if err != nil {
		return "", err
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return "", errors.New("the token endpoint sent no ID token")
	}
	id, c, err := d.verify(ctx, raw, s.nonce)
	if err != nil {
		return "", err
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(token.AccessToken); err != nil {
			return "", err
		}
	}
	if c.Email == "" || c.EmailVerified == nil {
		if c, err = d.userInfo(ctx, token, id.Subject); err != nil {
			return "", err
		}
	}
	if c.EmailVerified == nil || !*c.EmailVerified || c.Email == "" {
		return "", errUnverified(d.Name)
	}
	return Address(c.Email)
}

// verify checks an ID token (OpenID Connect Core 1.0 §3.1.3.7): go-oidc its signature, issuer, audience
// and expiry, with keys and algorithms that the provider publishes, never "none" or HMAC. A token for
// several audiences has to name this client as the one it was issued to.
func (d *discovered) verify(ctx context.Context, raw, nonce string) (*oidc.IDToken, claims, error) {
	var c claims
	id, err := d.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, c, err
	}
	if err := id.Claims(&c); err != nil {
		return nil, c, fmt.Errorf("read claims: %w", err)
	}
	switch {
	case id.Issuer != d.Issuer: // go-oidc takes another spelling of one provider's
		return nil, c, errors.New("the ID token is of another issuer")
	case id.Nonce != nonce:
		return nil, c, errors.New("the ID token has another nonce")
	case c.AuthorizedParty != "" && c.AuthorizedParty != d.ClientID, c.AuthorizedParty == "" && len(id.Audience) > 1:
		return nil, c, errors.New("the ID token was issued to another client")
	case id.Subject == "":
		return nil, c, errors.New("the ID token has no subject")
	}
	return id, c, nil
}

// userInfo asks the provider for claims that are not in the ID token, as in the authorization code flow
// many are (§5.4).
func (d *discovered) userInfo(ctx context.Context, token *oauth2.Token, subject string) (c claims, err error) {
	if d.op.UserInfoEndpoint() == "" {
		return c, errUnverified(d.Name)
	}
	info, err := d.op.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return c, fmt.Errorf("user info: %w", err)
	}
	if info.Subject != subject { // §5.3.2
		return c, errors.New("the user info is of another subject")
	}
	if err := info.Claims(&c); err != nil {
		return c, fmt.Errorf("read user info: %w", err)
	}
	return c, nil
}

func errUnverified(name string) error {
	return gateway.Errorf(gateway.KindDenied, "%s does not say that it has verified your mail address", name).
		WithHint("Verify the address there, then try again.")
}

// asUnverified returns an error that is meant for the person, or nil.
func asUnverified(err error) error {
	if e, ok := errors.AsType[*gateway.Error](err); ok {
		return e
	}
	return nil
}
