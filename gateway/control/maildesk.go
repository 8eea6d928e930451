package control

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"lodge/gateway"
)

func (s *Server) searchMail(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	found, err := s.as(r).SearchMail(r.Context(), r.PathValue("name"), r.URL.Query()["q"], limit)
	return answerOr(w, found, err)
}

func (s *Server) mailLog(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	events, err := s.as(r).MailLog(r.Context(), r.PathValue("name"), limit)
	return answerOr(w, events, err)
}

func (s *Server) mailQueue(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	letters, err := s.as(r).MailQueue(r.Context(), r.URL.Query().Get("vm"), limit)
	return answerOr(w, letters, err)
}

func (s *Server) changeMailQueue(w http.ResponseWriter, r *http.Request) error {
	var change gateway.QueueChange
	if err := decode(w, r, maxBodyBytes, &change); err != nil {
		return err
	}
	changed, err := s.as(r).ChangeMailQueue(r.Context(), r.URL.Query().Get("vm"), change)
	return answerOr(w, changed, err)
}

// MailStates shows how much mail there is for each VM, and for postmaster.
func (c *Client) MailStates(ctx context.Context) ([]gateway.MailboxState, error) {
	var states []gateway.MailboxState
	err := c.call(ctx, http.MethodGet, "/v1/mail", nil, &states)
	return states, err
}

// SearchMail returns the newest messages of a VM that fit all terms, at most limit (1 to 10000).
func (c *Client) SearchMail(ctx context.Context, name string, terms []string, limit int) ([]gateway.Message, error) {
	var found []gateway.Message
	query := url.Values{"q": terms, "limit": {strconv.Itoa(limit)}}
	err := c.onVM(ctx, http.MethodGet, name, "/mail-search?"+query.Encode(), nil, &found)
	return found, err
}

// MailLog returns what became of a VM's mail, the newest event first, at most limit (1 to 10000).
func (c *Client) MailLog(ctx context.Context, name string, limit int) ([]gateway.MailEvent, error) {
	var events []gateway.MailEvent
	err := c.onVM(ctx, http.MethodGet, name, "/mail-log?limit="+strconv.Itoa(limit), nil, &events)
	return events, err
}

// Redeliver delivers messages into their VM again.
func (c *Client) Redeliver(ctx context.Context, name string, r gateway.MailRedelivery) (gateway.MailRedelivered, error) {
	var done gateway.MailRedelivered
	err := c.onVM(ctx, http.MethodPost, name, "/mail-redeliveries", r, &done)
	return done, err
}

// MailQueue lists the letters that wait to leave the host, of one VM or of all for the empty name, at most limit (1 to
// 10000).
func (c *Client) MailQueue(ctx context.Context, name string, limit int) ([]gateway.QueuedMail, error) {
	var letters []gateway.QueuedMail
	query := url.Values{"vm": {name}, "limit": {strconv.Itoa(limit)}}
	err := c.call(ctx, http.MethodGet, "/v1/mail-queue?"+query.Encode(), nil, &letters)
	return letters, err
}

// ChangeMailQueue retries or removes such letters.
func (c *Client) ChangeMailQueue(ctx context.Context, name string, change gateway.QueueChange) (gateway.QueueChanged, error) {
	var changed gateway.QueueChanged
	err := c.call(ctx, http.MethodPost, "/v1/mail-queue?"+url.Values{"vm": {name}}.Encode(), change, &changed)
	return changed, err
}
