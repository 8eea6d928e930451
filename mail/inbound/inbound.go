// Package inbound receives mail: SMTP (RFC 5321) by go-smtp, guarded, into the mailbox store.
//
// The life of a message: a guarded connection → MAIL, RCPT (a VM of this host, or 550: no
// backscatter) → DATA streams to disk, lines are checked → trace headers are made → one Commit for
// all recipients → 250. It never authenticates and never relays.
//
// What go-smtp leaves open is closed here:
//
//   - lines, chunks and what comes behind the end of a session: wire;
//   - one deadline for a whole DATA, no limits on sessions and connections, a Shutdown that waits
//     for idle clients: guard;
//   - a second MAIL is accepted, and two messages' outcomes are mixed up when the first is aborted
//     between chunks: session;
//   - a client is sent the text of any error: replyFor.
//
// Known limits: a message of exactly the size limit is refused, and a bare CR behind a line's
// leading dot is dropped.
package inbound

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"lodge/gateway"
	"lodge/mail/guard"
	"lodge/mail/mailbox"
)

const (
	maxRecipients = 100
	maxErrors     = 20 // refused commands in one session
)

// Config is what a Server needs. All fields must be set.
type Config struct {
	Domain          string
	Directory       *gateway.Directory
	Store           *mailbox.Store
	MaxMessageBytes int64 // a message must be smaller
	Limits          Limits
	Logger          *slog.Logger
}

// Limits bound what strangers can use.
type Limits struct {
	guard.Limits
	Data time.Duration // the longest time for one message
}

// DefaultLimits suit a host on the internet.
func DefaultLimits() Limits {
	return Limits{
		Limits: guard.Limits{
			Conns: 1000, PerPeer: 100, PerNet: 200, Idle: 5 * time.Minute, Crowded: 10 * time.Second, Session: 2 * time.Hour, Writes: 50_000,
		},
		Data: 30 * time.Minute,
	}
}

// Server is an SMTP server. Make it with New.
type Server struct {
	config Config
	policy policy
	guard  *guard.Server

	accepted atomic.Uint64
}

// New returns a server that does not listen yet.
func New(config Config) *Server {
	s := &Server{config: config, policy: policy{config.Domain, config.Directory, config.MaxMessageBytes}}
	engine := smtp.NewServer(smtp.BackendFunc(s.newSession))
	engine.Domain = config.Domain
	engine.MaxMessageBytes = config.MaxMessageBytes
	engine.MaxRecipients = maxRecipients
	engine.MaxLineLength = 0 // wire has the limits
	engine.ErrorLog = errorLog{config.Logger}
	s.guard = &guard.Server{
		Name: "smtp", Protocol: engine, Limits: config.Limits.Limits, Wrap: newWire,
		Replies: guard.Replies{
			Busy: "421 4.7.0 Too many connections, try again later",
			HTTP: "554 5.5.1 This is SMTP, not HTTP",
		},
	}
	return s
}

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	return &session{server: s, conn: c, wire: c.Conn().(*wire)}, nil // as New set up
}

// Accepted is the number of messages accepted since the start, one per recipient.
func (s *Server) Accepted() uint64 { return s.accepted.Load() }

// Serve receives mail on l until Shutdown, and returns nil then.
func (s *Server) Serve(l net.Listener) error { return s.guard.Serve(l) }

// Shutdown stops listening, ends idle sessions, and lets messages that are coming in finish. When
// ctx ends it cuts what is left, and returns the context's error.
func (s *Server) Shutdown(ctx context.Context) error { return s.guard.Shutdown(ctx) }

// errorLog logs go-smtp's messages: accept errors, broken connections, panics in a session.
type errorLog struct{ logger *slog.Logger }

// Printf implements smtp.Logger.
func (l errorLog) Printf(format string, args ...any) {
	l.logger.Warn("smtp session failed", "err", fmt.Sprintf(format, args...))
}

// Println implements smtp.Logger.
func (l errorLog) Println(args ...any) {
	l.logger.Warn("smtp session failed", "err", fmt.Sprint(args...))
}
