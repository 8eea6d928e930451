package smtpd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// greet waits for a client that speaks out of turn, and returns the banner. Programs that talk to any
// port, such as a browser that was made to, do not wait for it.
func (s *session) greet() Reply {
	limits := s.server.config.Limits
	if !s.server.rates.conns.take(s.peer, time.Now()) {
		s.ended = true
		return Reply{421, "4.7.0", "Too many connections from your address, try again later"}
	}
	if limits.Greet > 0 {
		s.conn.SetIdle(limits.Greet)
		_, err := s.conn.Read(make([]byte, 1))
		switch {
		case err == nil:
			s.ended = true
			return Reply{554, "5.5.0", "Commands before the banner"}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			s.ended = true
			return Reply{}
		}
	}
	s.conn.SetIdle(limits.Early)
	return Reply{220, "", s.server.config.Domain + " ESMTP"}
}

// hello runs EHLO and HELO. Both end a transaction (RFC 5321 §4.1.4).
func (s *session) hello(verb, name string) Reply {
	if name == "" || strings.ContainsAny(name, " \t") || !isText(name) {
		return replySyntax(verb + " hostname")
	}
	s.reset(errReset)
	s.client.Helo, s.client.ESMTP = name, verb == "EHLO"
	if !s.client.ESMTP {
		return Reply{250, "", s.server.config.Domain}
	}
	lines := append([]string{s.server.config.Domain}, s.extensions()...)
	for i, line := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		_, _ = s.out.WriteString("250" + separator + line + "\r\n") // the next read reports the error
	}
	return Reply{}
}

var errReset = fmt.Errorf("the client gave the message up: %w", ErrCut)

func (s *session) extensions() []string {
	c := s.server.config
	all := []string{
		"PIPELINING", fmt.Sprint("SIZE ", c.MaxMessageBytes), "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "CHUNKING",
	}
	if c.DSN {
		all = append(all, "DSN")
	}
	if c.TLS != nil && !s.client.TLS {
		all = append(all, "STARTTLS")
	}
	return all
}

// others runs the commands that change nothing but the session.
func (s *session) others(verb string) Reply {
	switch verb {
	case "RSET":
		s.reset(errReset)
		return Reply{250, "2.0.0", "OK"}
	case "NOOP":
		return Reply{250, "2.0.0", "OK"}
	case "QUIT":
		s.ended = true
		return Reply{221, "2.0.0", "Bye"}
	case "VRFY":
		return Reply{252, "2.0.0", "Send some mail to find out"}
	case "HELP":
		return Reply{214, "2.0.0", "RFC 5321"}
	case "EXPN", "ETRN", "TURN", "ATRN", "AUTH":
		return Reply{502, "5.5.1", "Command not implemented"}
	default:
		return Reply{500, "5.5.2", "Command not recognized"}
	}
}
