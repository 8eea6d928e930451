package control

import (
	"context"
	"net/http"
	"time"

	"lodge/gateway"
	"lodge/gateway/api"
)

func newLink(s api.Session, ctx context.Context, name string, in LinkRequest) (api.Pass, error) { //nolint:revive // the order of method expressions
	life, err := lifeOf(in.LifeSeconds)
	if err != nil {
		return api.Pass{}, err
	}
	return s.NewPass(ctx, name, gateway.LinkPass, api.PassSpec{Port: in.Port, Bucket: in.Bucket, Label: in.Label, MaxUses: in.MaxUses, Life: life})
}

func newToken(s api.Session, ctx context.Context, name string, in TokenRequest) (api.Pass, error) { //nolint:revive // as above
	life, err := lifeOf(in.LifeSeconds)
	if err != nil {
		return api.Pass{}, err
	}
	spec := api.PassSpec{AllPorts: in.Port == nil, Label: in.Label, Life: life}
	if in.Port != nil {
		spec.Port = *in.Port
	}
	return s.NewPass(ctx, name, gateway.TokenPass, spec)
}

// lifeOf keeps a number of seconds from overflowing.
func lifeOf(seconds int64) (time.Duration, error) {
	if seconds < 0 || seconds > int64(gateway.MaxPassLife/time.Second) {
		return 0, gateway.Invalid("a life of %d seconds", seconds).WithHint("It is valid for a minute to 366 days.")
	}
	return time.Duration(seconds) * time.Second, nil
}

func (s *Server) listPasses(kind gateway.PassKind) verb {
	return func(w http.ResponseWriter, r *http.Request) error {
		all, err := s.as(r).ListPasses(r.Context(), r.PathValue("name"), kind)
		return answerOr(w, all, err)
	}
}

func (s *Server) removePass(kind gateway.PassKind) verb {
	return func(w http.ResponseWriter, r *http.Request) error {
		return noContentOr(w, s.as(r).RemovePass(r.Context(), r.PathValue("name"), kind, r.PathValue("id")))
	}
}

// NewLink makes a link to a port.
func (c *Client) NewLink(ctx context.Context, name string, in LinkRequest) (api.Pass, error) {
	var made api.Pass
	return made, c.onVM(ctx, http.MethodPost, name, "/links", in, &made)
}

// NewToken makes a token.
func (c *Client) NewToken(ctx context.Context, name string, in TokenRequest) (api.Pass, error) {
	var made api.Pass
	return made, c.onVM(ctx, http.MethodPost, name, "/tokens", in, &made)
}

// Links lists the links of a VM.
func (c *Client) Links(ctx context.Context, name string) ([]api.Pass, error) {
	var all []api.Pass
	err := c.onVM(ctx, http.MethodGet, name, "/links", nil, &all)
	return all, err
}

// Tokens lists the tokens of a VM.
func (c *Client) Tokens(ctx context.Context, name string) ([]api.Pass, error) {
	var all []api.Pass
	err := c.onVM(ctx, http.MethodGet, name, "/tokens", nil, &all)
	return all, err
}

// RemoveLink removes a link.
func (c *Client) RemoveLink(ctx context.Context, name, id string) error {
	return c.removePass(ctx, name, "/links/", id)
}

// RemoveToken removes a token.
func (c *Client) RemoveToken(ctx context.Context, name, id string) error {
	return c.removePass(ctx, name, "/tokens/", id)
}

func (c *Client) removePass(ctx context.Context, name, verb, id string) error {
	path, err := vmPath(name, verb)
	if err != nil {
		return err
	}
	return c.onPath(ctx, http.MethodDelete, path, id, "", nil, nil)
}
