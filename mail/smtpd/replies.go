package smtpd

import (
	"errors"

	"github.com/emersion/go-smtp"

	"lodge/gateway"
)

// Replies to strangers: code, enhanced code (RFC 3463), text. None says anything of the host's inside.

func reply(code, class, subject, detail int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{class, subject, detail}, Message: text}
}

func replyUnknown() *smtp.SMTPError { return reply(550, 5, 1, 1, "No such VM here") }
func replyRelay() *smtp.SMTPError {
	return reply(550, 5, 7, 1, "Mail for that domain is not taken here")
}
func replyNested() *smtp.SMTPError { return reply(503, 5, 5, 1, "One MAIL at a time; RSET ends it") }
func replyTooBig() *smtp.SMTPError { return reply(552, 5, 3, 4, "Message is too big") }
func replyFull() *smtp.SMTPError {
	return reply(452, 4, 3, 1, "No room for mail right now, try again later")
}

func replyLater() *smtp.SMTPError {
	return reply(451, 4, 3, 0, "Cannot take mail right now, try again later")
}
func replyErrors() *smtp.SMTPError { return reply(421, 4, 7, 0, "Too many errors, bye") }

func replyBadAddress() *smtp.SMTPError {
	return reply(553, 5, 1, 3, "Addresses are printable ASCII of at most 254 characters")
}

func replyBareLine() *smtp.SMTPError {
	return reply(554, 5, 6, 0, "Bare CR or LF in the message: lines end in CRLF (RFC 5321 section 2.3.8)")
}

// replyFor is the one table from errors to replies. Reading errors keep the reply that go-smtp has put into them.
func replyFor(err error) *smtp.SMTPError {
	if known, ok := errors.AsType[*smtp.SMTPError](err); ok {
		return known
	}
	switch gateway.KindOf(err) {
	case gateway.KindNoSpace:
		return replyFull()
	case gateway.KindNotFound:
		return replyUnknown()
	default:
		return replyLater()
	}
}
