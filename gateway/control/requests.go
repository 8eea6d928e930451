package control

import (
	"context"
	"net/http"

	"lodge/gateway/api"
)

func (s *Server) approve(w http.ResponseWriter, r *http.Request) error {
	approved, err := s.as(r).Approve(r.Context(), r.PathValue("id"))
	return answerOr(w, approved, err)
}

func (s *Server) deny(w http.ResponseWriter, r *http.Request) error {
	return noContentOr(w, s.as(r).Deny(r.Context(), r.PathValue("id")))
}

// Requests lists the requests for access that nobody has answered.
func (c *Client) Requests(ctx context.Context) ([]api.AccessRequest, error) {
	var all []api.AccessRequest
	err := c.call(ctx, http.MethodGet, "/v1/requests", nil, &all)
	return all, err
}

// Approve opens the port of a request to who asked.
func (c *Client) Approve(ctx context.Context, id string) (api.AccessRequest, error) {
	var approved api.AccessRequest
	return approved, c.onPath(ctx, http.MethodPost, "/v1/requests/", id, "/approve", nil, &approved)
}

// Deny removes a request.
func (c *Client) Deny(ctx context.Context, id string) error {
	return c.onPath(ctx, http.MethodDelete, "/v1/requests/", id, "", nil, nil)
}
