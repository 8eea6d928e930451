package smtpd

import (
	"context"
	"slices"
	"strings"
	"time"
)

const (
	maxRecipients = 100 // of one message; RFC 5321 §4.5.3.1.8
	rcptUsage     = "RCPT TO:<address>"
)

// statusTooManyRecipients is that of a refusal which is not the client's error: it sends the rest in
// another transaction (RFC 5321 §4.5.3.1.10).
const statusTooManyRecipients = "4.5.3"

// rcptTo runs RCPT. Refusals of unknown recipients wait for their turn: whoever tries many is
// looking for those that exist.
func (s *session) rcptTo(ctx context.Context, args string) Reply {
	switch {
	case s.mail == nil:
		return replyOrder("Need MAIL command")
	case s.body != nil:
		return replyOrder("Recipients come before the message")
	case len(s.mail.To) >= maxRecipients:
		return Reply{452, statusTooManyRecipients, "Too many recipients, send the rest in another transaction"}
	}
	to, refusal := s.recipient(args)
	if refusal.Code != 0 {
		return refusal
	}
	vm, err := s.server.config.Policy.Recipient(ctx, s.client, *s.mail, to)
	if err != nil {
		refusal := ReplyTo(err)
		if refusal.Code < 500 || refusal.ofClient() { // the address is right
			return refusal
		}
		return s.tarpit(ctx, refusal)
	}
	to.VM = vm
	if !slices.ContainsFunc(s.mail.To, func(r Recipient) bool { return r.Path == to.Path }) {
		s.mail.To = append(s.mail.To, to)
	}
	s.conn.SetIdle(s.server.config.Limits.Idle)
	return Reply{250, "2.1.5", "OK"}
}

func (s *session) recipient(args string) (Recipient, Reply) {
	path, params, refusal := pathAndParams(args, "TO:", rcptUsage, "5.1.3")
	to := Recipient{Path: path}
	switch {
	case refusal.Code != 0:
		return Recipient{}, refusal
	case path == Path{}:
		return Recipient{}, replyBadPath("5.1.3")
	case !path.ASCII() && !s.mail.UTF8:
		return Recipient{}, replyNeedUTF8()
	}
	for _, p := range params {
		if !to.set(p) {
			return Recipient{}, replyParameter()
		}
	}
	return to, Reply{}
}

// tarpit delays a refusal by the rate of its Peer.
func (s *session) tarpit(ctx context.Context, refusal Reply) Reply {
	delay, ok := s.server.rates.refused.reserve(s.peer, time.Now())
	if !ok {
		return Reply{421, "4.7.0", "Too many unknown recipients from your address, try again later"}
	}
	if delay <= 0 {
		return refusal
	}
	_ = s.out.Flush() // the next read reports the error
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return refusal
	case <-s.conn.Draining():
	case <-ctx.Done():
	}
	return replyShutdown()
}

// set applies a parameter of RCPT. It is false for one that is unknown or malformed.
func (r *Recipient) set(p param) bool {
	switch p.key {
	case "NOTIFY": // RFC 3461 §4.1
		r.Notify = strings.ToUpper(p.value)
		if r.Notify == "NEVER" {
			return true
		}
		for event := range strings.SplitSeq(r.Notify, ",") {
			if event != "SUCCESS" && event != "FAILURE" && event != "DELAY" {
				return false
			}
		}
		return true
	case "ORCPT": // RFC 3461 §4.2
		kind, address, found := strings.Cut(p.value, ";")
		address, ok := unxtext(address)
		r.Original = kind + ";" + address
		return ok && found && kind != "" && len(p.value) <= 500
	}
	return false
}
