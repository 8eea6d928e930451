// Package smtpd is the server's side of SMTP (RFC 5321). It speaks the protocol; a Policy decides who
// may send what to whom, and keeps it. It knows nothing of mailboxes and VMs.
//
// The life of a message: a guarded connection → the banner → EHLO, and STARTTLS maybe → MAIL and
// RCPT, on which the Policy decides → DATA or BDAT, whose body is written to a Message as it comes →
// Message.Commit → 250. There is one file per verb; lines.go reads, and no other file does.
//
// Extensions: SIZE (RFC 1870), ENHANCEDSTATUSCODES (RFC 2034), PIPELINING (RFC 2920), CHUNKING
// (RFC 3030), STARTTLS (RFC 3207), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531) and, if Config asks for
// it, DSN (RFC 3461).
//
// A session is in sync with its client, or it is closed. So this is what bad input gets:
//
//   - bytes before the banner: 554 5.5.0, closed;
//   - a command line above 4 KiB: 500 5.5.6, closed; one that does not end in CRLF: 500 5.5.2;
//   - a command that is unknown, out of order or has bad arguments: 500 to 555, and 421 4.7.0, closed,
//     after 20 refusals, those of too many recipients aside;
//   - what is sent ahead of the reply to STARTTLS, or to a DATA that is refused: closed, unread;
//   - BDAT that is refused: its chunk is read and dropped before the reply. If its size is no number,
//     or above twice the limit of a message: closed;
//   - a message above the limit: 552 5.3.4, and closed above twice that; with a line above 64 KiB:
//     554 5.6.0; with more than 50 Received: 554 5.4.6;
//   - a message with a bare CR or LF: 554 5.6.0, closed if it came by DATA;
//   - a message that ends before its end: closed, with 451 4.4.2 if it took too long.
//
// Bare CR and LF are refused for good, though RFC 5321 §2.3.8 is broken by real programs. Servers
// differ on whether such a line ends: whoever passes it on lets its sender smuggle commands or headers
// past the next one, and whoever mends it changes what DKIM signs and what was sent. The sender's server
// reports the refusal to a person, so nothing is lost without a word. With DATA it is unclear what
// follows such a message, hence the close.
package smtpd

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"time"

	"lodge/gateway"
	"lodge/mail/guard"
)

// Config is what a Server needs. All fields but TLS and DSN must be set.
type Config struct {
	Domain          string // of this server: in the banner and in the reply to EHLO
	Policy          Policy
	MaxMessageBytes int64       // the largest message, as RFC 1870 counts
	TLS             *tls.Config // for STARTTLS; nil: it is not offered
	DSN             bool        // the Policy sends the notifications that RFC 3461 asks for
	Limits          Limits
	Logger          *slog.Logger
}

// Policy decides on envelopes, and keeps messages. Its methods are called for many connections at
// once, for one connection one after the other.
//
// An error that is a Reply is sent as it is. Any other is replied to by its gateway.Kind: EIO of a disk with
// 452 4.3.0, NoSpace with 452 4.3.1, NotFound with 550 5.1.1, all others with 451 4.3.0; its text is never sent.
type Policy interface {
	// Sender decides on MAIL. The envelope has no recipients yet, and an announced size within the
	// limit.
	Sender(ctx context.Context, c Client, e Envelope) error
	// Recipient decides on RCPT, and returns whose mailbox it is: the zero Identity for one that is
	// not on this host. The envelope has the recipients accepted before.
	Recipient(ctx context.Context, c Client, e Envelope, to Recipient) (gateway.Identity, error)
	// Begin begins a message for the recipients of the envelope, of which there is one at least.
	Begin(ctx context.Context, c Client, e Envelope) (Message, error)
}

// Message is a message that is coming in. Either Commit returns nil or Abort is called, as the last
// call.
type Message interface {
	// Write appends to the message: lines that end in CRLF, without SMTP's additional dots. The first
	// error refuses the message, and no more is written then.
	io.Writer
	// Commit keeps the message, and returns once it is safe. The queue id is for the sender's log.
	Commit() (queueID string, err error)
	// Abort removes the message. err is what was wrong with it, which ReplyTo makes the reply of; none was sent
	// for ErrCut, or one of the session's.
	Abort(err error)
}

// Client is who is at the other end, passed by value.
type Client struct {
	VM     gateway.Identity // of the tap that the connection came in on; the zero value for a stranger
	Remote string           // IP address, without the port
	Helo   string           // the name it gave itself: any text of the client's without spaces
	ESMTP  bool             // it has said EHLO
	TLS    bool             // the connection is encrypted, to somebody who proved nothing
}

// Protocol is what a Received header has behind "with" (RFC 3848 and RFC 6531 §4.3).
func (c Client) Protocol(utf8 bool) string {
	name := "SMTP"
	switch {
	case utf8:
		name = "UTF8SMTP"
	case c.ESMTP:
		name = "ESMTP"
	}
	if c.TLS {
		name += "S"
	}
	return name
}

// Envelope is what MAIL and RCPT gave.
type Envelope struct {
	From   Path        // the zero Path is the null sender
	To     []Recipient // accepted by the Policy, no two with the same Path
	Size   int64       // as announced, in bytes; 0 if it was not
	UTF8   bool        // SMTPUTF8: addresses and headers may be UTF-8
	Return string      // DSN: RET, "FULL" or "HDRS", or empty
	ID     string      // DSN: ENVID, decoded, or empty
}

// Recipient is what one RCPT gave.
type Recipient struct {
	Path     Path
	VM       gateway.Identity // as the Policy returned it
	Notify   string           // DSN: NOTIFY, in upper case, or empty
	Original string           // DSN: ORCPT, type and decoded address, or empty
}

// Limits bound what strangers can use. Every field must be set but Greet.
type Limits struct {
	guard.Limits
	Greet time.Duration // the banner waits so long for clients that speak before it
	Early time.Duration // Idle, until the first recipient is accepted
	Data  time.Duration // the longest time for one message
	Rates Rates
}

// Rates bound how often, per gateway.Peer, and four times as often in the net around it. Loopback has
// none: it is where tunnels and proxies end, so it stands for many.
type Rates struct {
	Conns    Rate // connections; above it 421 4.7.0
	Messages Rate // MAIL; above it 450 4.7.1
	// Refused are recipients refused for good, but for a 554 5.7.1, which is about the client.
	// Above it the replies wait for their turn, and 421 4.7.0 after 10 s.
	Refused Rate
}

// Rate is a token bucket.
type Rate struct {
	PerSecond float64
	Burst     int
}

// DefaultLimits suit a host on the internet.
func DefaultLimits() Limits {
	return Limits{
		Limits: guard.Limits{
			Conns: 1000, PerPeer: 100, PerNet: 200, Idle: 5 * time.Minute, Crowded: 10 * time.Second, Session: 2 * time.Hour,
			Writes: 4 * maxCommands, // more than those cause: no 250 is cut off
		},
		Greet: 50 * time.Millisecond, Early: time.Minute, Data: 30 * time.Minute,
		Rates: Rates{Conns: Rate{10, 200}, Messages: Rate{50, 1000}, Refused: Rate{1, 20}},
	}
}
