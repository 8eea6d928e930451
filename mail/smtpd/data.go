package smtpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
)

// data runs DATA. The message ends at CRLF "." CRLF and nowhere else.
func (s *session) data(ctx context.Context) Reply {
	if s.body != nil {
		return s.refuseData(replyOrder("The message came by BDAT: end it by BDAT"))
	}
	if refusal := s.begin(ctx); refusal.Code != 0 {
		return s.refuseData(refusal)
	}
	s.reply(Reply{354, "", "End data with <CR><LF>.<CR><LF>"})
	if err := s.readData(); err != nil {
		return s.broken(err)
	}
	s.ended = s.body.bare // what follows may have been meant as a part of it
	return s.commit()
}

// refuseData refuses DATA. A client that has not waited for the reply has sent a message, which must
// not be run as commands.
func (s *session) refuseData(r Reply) Reply {
	s.ended = s.ended || s.in.buffered() > 0
	return r
}

// readData reads a message, and removes the additional dots (RFC 5321 §4.5.2).
func (s *session) readData() error {
	for start := true; ; {
		p, err := s.in.piece(bufferBytes)
		switch {
		case err != nil:
			return err
		case start && string(p) == ".\r\n":
			return nil
		case start && p[0] == '.':
			p = p[1:]
		}
		start = s.body.add(p)
		if s.body.excessive() {
			return errExcessive
		}
	}
}

var errExcessive = errors.New("the client sent more than twice the limit of a message")

// begin begins the message of a transaction, unless that is refused.
func (s *session) begin(ctx context.Context) Reply {
	switch {
	case s.mail == nil:
		return replyOrder("Need MAIL command")
	case len(s.mail.To) == 0:
		return replyOrder("Need RCPT command")
	}
	message, err := s.server.config.Policy.Begin(ctx, s.client, *s.mail)
	if err != nil {
		s.mail = nil
		return ReplyTo(err)
	}
	s.body = newBody(message, s.server.config.MaxMessageBytes, s.server.buffers.Get().(*bufio.Writer))
	s.conn.Begin(s.server.config.Limits.Data)
	return Reply{}
}

// commit ends the message and the transaction.
func (s *session) commit() Reply {
	id, err := s.body.commit()
	s.endBody()
	s.mail = nil
	if err != nil {
		return ReplyTo(err)
	}
	return Reply{250, "2.0.0", "OK: queued as " + id}
}

// endBody ends the transfer of a message, whose Message is committed or aborted.
func (s *session) endBody() {
	s.conn.End()
	s.server.buffers.Put(s.body.out)
	s.body = nil
}

// broken ends the session in the middle of a message: nobody knows where the next command begins.
func (s *session) broken(err error) Reply {
	s.ended = true
	r := Reply{}
	switch {
	case errors.Is(err, errExcessive):
		r = replyTooBig()
	case errors.Is(err, os.ErrDeadlineExceeded):
		r = replyTimeout()
	}
	s.reset(fmt.Errorf("%w: %w", ErrCut, err))
	return r
}
