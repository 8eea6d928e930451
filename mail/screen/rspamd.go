package screen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"lodge/gateway/post"
)

const (
	rspamdPatience = 10 * time.Second
	maxRspamdBytes = 1 << 20 // of an answer
	maxRspamdCalls = 16      // at once
)

// Advice is what rspamd advises.
type Advice int

// What rspamd may advise; what else it answers, and no answer, is Accept.
const (
	Accept Advice = iota
	Spam          // to mark the message
	Later         // to refuse it for now
	Reject
)

// Message is what rspamd is asked about.
type Message struct {
	Remote  netip.Addr
	Helo    string
	From    string // of the envelope, without brackets; empty for the null sender
	To      []string
	Bytes   int64
	Content io.Reader // not used after Advise has returned
}

// newClient returns a client that follows no redirect and uses no proxy.
func newClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{MaxConnsPerHost: maxRspamdCalls, MaxIdleConnsPerHost: maxRspamdCalls, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is the part of rspamd's answer that is used
// (https://rspamd.com/doc/developers/protocol.html).
type answer struct {
	Action   string `json:"action"`
	Messages struct {
		SMTP string `json:"smtp_message"`
	} `json:"messages"`
}

// Advise returns rspamd's advice on a message, and its text for the sender of one that is refused:
// printable ASCII, which may be empty. A failure is logged when it begins.
func (s *Screen) Advise(ctx context.Context, m Message) (advice Advice, text string) {
	if s.config.Rspamd == "" {
		return Accept, ""
	}
	ctx, cancel := context.WithTimeout(ctx, rspamdPatience)
	defer cancel()
	a, err := s.ask(ctx, m)
	if was := s.broken.Swap(err != nil); err != nil && !was {
		s.logger.Warn("rspamd not reached", "err", err)
	} else if err == nil && was {
		s.logger.Info("rspamd answered again")
	}
	if err != nil {
		return Accept, ""
	}
	return s.follow(a)
}

// follow turns an answer into advice, as far as the operator wants it.
func (s *Screen) follow(a answer) (advice Advice, text string) {
	switch a.Action {
	case "add header", "rewrite subject", "quarantine", "discard": // no mail is dropped
		return Spam, ""
	case "soft reject":
		return Later, printable(a.Messages.SMTP)
	case "reject":
		if !s.config.Reject {
			return Spam, ""
		}
		return Reject, printable(a.Messages.SMTP)
	}
	return Accept, ""
}

func (s *Screen) ask(ctx context.Context, m Message) (a answer, err error) {
	content := post.NewBody(m.Content)
	defer func() { _ = content.Close() }() // it never fails
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(s.config.Rspamd, "/")+"/checkv2", content)
	if err != nil {
		return a, fmt.Errorf("make request: %w", err)
	}
	r.ContentLength = m.Bytes
	r.Header.Set("From", "<"+m.From+">")
	if m.Remote.IsValid() {
		r.Header.Set("IP", m.Remote.Unmap().WithZone("").String())
	}
	r.Header.Set("Helo", printable(m.Helo))
	for _, to := range m.To {
		r.Header.Add("Rcpt", "<"+to+">")
	}
	response, err := s.client.Do(r)
	if err != nil {
		return a, fmt.Errorf("ask rspamd: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // only read
	if response.StatusCode != http.StatusOK {
		return a, fmt.Errorf("ask rspamd: %s", response.Status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxRspamdBytes+1))
	switch {
	case err != nil:
		return a, fmt.Errorf("read rspamd's answer: %w", err)
	case len(text) > maxRspamdBytes:
		return a, errors.New("rspamd's answer is too large")
	}
	return decodeAnswer(text)
}

func decodeAnswer(text []byte) (a answer, err error) {
	if err := json.Unmarshal(text, &a); err != nil {
		return answer{}, fmt.Errorf("read rspamd's answer: %w", err)
	}
	return a, nil
}
