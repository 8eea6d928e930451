package smtpd

import (
	"errors"
	"fmt"
	"syscall"

	"lodge/gateway"
)

// Reply is a reply of one line (RFC 5321 §4.2). As an error of a Policy it is sent as it is. The
// zero Reply stands for none.
type Reply struct {
	Code   int    // 421 closes the connection
	Status string // enhanced code (RFC 3463); empty for a banner and 354 alone
	Text   string // printable ASCII
}

// Error implements error.
func (r Reply) Error() string { return fmt.Sprintf("%d %s %s", r.Code, r.Status, r.Text) }

// line is what is sent.
func (r Reply) line() string {
	status := r.Status
	if status != "" {
		status += " "
	}
	return fmt.Sprintf("%03d %s%s\r\n", r.Code, status, r.Text)
}

// refuses reports whether the reply is not what the client hoped for.
func (r Reply) refuses() bool { return r.Code >= 400 }

// ofClient reports whether the reply refuses the client, whatever the recipient.
func (r Reply) ofClient() bool { return r.Code == 554 && r.Status == "5.7.1" }

// ReplyTo is the one table from a Policy's errors to replies. Strangers get no error's text.
func ReplyTo(err error) Reply {
	if known, ok := errors.AsType[Reply](err); ok {
		return known
	}
	if errors.Is(err, syscall.EIO) {
		return Reply{452, "4.3.0", "The storage of this system fails, try again later"}
	}
	switch gateway.KindOf(err) {
	case gateway.KindNoSpace:
		return Reply{452, "4.3.1", "Insufficient system storage"}
	case gateway.KindNotFound:
		return Reply{550, "5.1.1", "User unknown"}
	default:
		return Reply{451, "4.3.0", "Temporary local problem, try again later"}
	}
}

// The texts are those of other mail servers where there are such, since administrators search for
// them.

func replySyntax(usage string) Reply { return Reply{501, "5.5.4", "Syntax: " + usage} }
func replyOrder(text string) Reply   { return Reply{503, "5.5.1", text} }
func replyTooBig() Reply             { return Reply{552, "5.3.4", "Message size exceeds fixed limit"} }
func replyTimeout() Reply            { return Reply{451, "4.4.2", "Timeout exceeded while receiving the message"} }

func replyParameter() Reply {
	return Reply{555, "5.5.4", "Unsupported or malformed parameter; EHLO lists the extensions"}
}

func replyBadPath(status string) Reply {
	return Reply{553, status, "Bad address syntax: <user@domain> expected, at most 254 bytes, no control characters"}
}

func replyBareLine() Reply {
	return Reply{554, "5.6.0", "Bare CR or LF received; lines must end in CRLF (RFC 5321 section 2.3.8)"}
}

func replyLongLine() Reply {
	return Reply{554, "5.6.0", "Line too long; encode the message in lines of at most 998 bytes"}
}

func replyLoop() Reply {
	return Reply{554, "5.4.6", "Too many hops: the message has more than 50 Received headers"}
}
