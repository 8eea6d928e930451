package smtpd

import (
	"context"
	"strconv"
	"strings"
	"time"
)

const mailUsage = "MAIL FROM:<address>"

// mailFrom runs MAIL, which begins a transaction.
func (s *session) mailFrom(ctx context.Context, args string) Reply {
	switch {
	case s.client.Helo == "":
		return replyOrder("Send EHLO first")
	case s.mail != nil:
		return replyOrder("Nested MAIL command")
	}
	from, params, refusal := pathAndParams(args, "FROM:", mailUsage, "5.1.7")
	if refusal.Code != 0 {
		return refusal
	}
	e := Envelope{From: from}
	for _, p := range params {
		if !e.set(p) {
			return replyParameter()
		}
	}
	switch {
	case from.Domain == "" && from != (Path{}): // <postmaster> is a recipient alone
		return replyBadPath("5.1.7")
	case !from.ASCII() && !e.UTF8:
		return replyNeedUTF8()
	case e.Size > s.server.config.MaxMessageBytes:
		return replyTooBig()
	case !s.server.rates.messages.take(s.peer, time.Now()):
		return Reply{450, "4.7.1", "Too many messages from your address, try again later"}
	}
	if err := s.server.config.Policy.Sender(ctx, s.client, e); err != nil {
		return ReplyTo(err)
	}
	s.mail = &e
	return Reply{250, "2.1.0", "OK"}
}

func replyNeedUTF8() Reply {
	return Reply{553, "5.6.7", "A non-ASCII address needs the parameter SMTPUTF8 of MAIL"}
}

// set applies a parameter of MAIL. It is false for one that is unknown or malformed.
func (e *Envelope) set(p param) bool {
	switch p.key {
	case "SIZE": // RFC 1870 §4: up to 20 digits
		if len(p.value) > 20 || strings.Trim(p.value, "0123456789") != "" {
			return false
		}
		size, err := strconv.ParseUint(p.value, 10, 63)
		e.Size = int64(size) // the largest number, for one above it
		return err == nil || strings.TrimLeft(p.value, "0") != ""
	case "BODY": // RFC 6152; BINARYMIME of RFC 3030 is not offered
		return strings.EqualFold(p.value, "7BIT") || strings.EqualFold(p.value, "8BITMIME")
	case "SMTPUTF8": // RFC 6531 §3.4
		e.UTF8 = true
		return !p.hasValue
	case "RET": // RFC 3461 §4.3
		e.Return = strings.ToUpper(p.value)
		return e.Return == "FULL" || e.Return == "HDRS"
	case "ENVID": // RFC 3461 §4.4
		var ok bool
		e.ID, ok = unxtext(p.value)
		return ok && len(p.value) <= 100
	}
	return false
}
