package inbound

import (
	"errors"

	"github.com/emersion/go-smtp"

	"lodge/gateway"
)

// Replies to strangers: code, enhanced code (RFC 3463), text, in the words of other mail servers,
// since administrators search for them. None reveals anything about the host.

func reply(code, class, subject, detail int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{class, subject, detail}, Message: text}
}

func replyUnknown() *smtp.SMTPError  { return reply(550, 5, 1, 1, "User unknown: no such VM") }
func replyRelay() *smtp.SMTPError    { return reply(550, 5, 7, 1, "Relay access denied") }
func replyNested() *smtp.SMTPError   { return reply(503, 5, 5, 1, "Nested MAIL command") }
func replyNeedMail() *smtp.SMTPError { return reply(503, 5, 5, 1, "Need MAIL command") }
func replyNeedRcpt() *smtp.SMTPError { return reply(503, 5, 5, 1, "Need RCPT command") }
func replyTooBig() *smtp.SMTPError   { return reply(552, 5, 3, 4, "Message size exceeds fixed limit") }
func replyFull() *smtp.SMTPError     { return reply(452, 4, 3, 1, "Insufficient system storage") }
func replyTemporary() *smtp.SMTPError {
	return reply(451, 4, 3, 0, "Temporary local problem, try again later")
}
func replyTooMany() *smtp.SMTPError { return reply(421, 4, 7, 0, "Too many errors") }
func replyBadAddress() *smtp.SMTPError {
	return reply(553, 5, 1, 3, "Bad address syntax: not printable ASCII, or longer than 254 characters")
}

func replyBareLine() *smtp.SMTPError {
	return reply(554, 5, 6, 0, "Bare CR or LF received (RFC 5321 section 2.3.8)")
}

// replyFor is the one table from errors to replies. Errors of reading carry the reply that go-smtp
// has given them.
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
		return replyTemporary()
	}
}
