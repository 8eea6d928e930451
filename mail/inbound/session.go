package inbound

import (
	"errors"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"lodge/gateway"
	"lodge/mail/mailbox"
)

// session is one connection. With BDAT, go-smtp may call Reset and Logout while Data runs, hence
// the lock.
type session struct {
	server *Server
	conn   *smtp.Conn
	wire   *wire

	mu      sync.Mutex
	errors  int
	mail    *transaction // nil outside of MAIL … DATA
	running bool         // Data runs
	aborted bool         // a chunked message was aborted, see Reset
}

// transaction is an envelope.
type transaction struct {
	from  string
	rcpts []recipient
}

type recipient struct {
	vm      gateway.Identity
	address string
}

// Mail begins a transaction. RFC 5321 §3.3 requires 503 for a second one.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.aborted:
		return s.hangUp(replyTemporary())
	case s.mail != nil:
		return s.refuse(replyNested())
	}
	var size int64
	if opts != nil {
		size = opts.Size
	}
	if err := s.server.policy.sender(from, size); err != nil {
		return s.refuse(replyFor(err))
	}
	s.mail = &transaction{from: from}
	return nil
}

// Rcpt adds a recipient whose VM exists.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mail == nil { // go-smtp checks it too
		return s.refuse(replyNeedMail())
	}
	r, err := s.server.policy.recipient(to)
	if err != nil {
		s.server.config.Logger.Debug("recipient refused", "rcpt", to, "remote", s.remote(), "err", err)
		return s.refuse(replyFor(err))
	}
	if !slices.Contains(s.mail.rcpts, r) {
		s.mail.rcpts = append(s.mail.rcpts, r)
	}
	return nil
}

// refuse counts an error, and ends the session when there are too many. The caller holds s.mu.
func (s *session) refuse(r *smtp.SMTPError) error {
	if s.errors++; s.errors <= maxErrors {
		return r
	}
	return s.hangUp(replyTooMany())
}

// hangUp ends the session after the reply r.
func (s *session) hangUp(r *smtp.SMTPError) error {
	s.wire.CloseAfterReply()
	r.Code = 421 // RFC 5321 §3.8: the connection closes
	return r
}

// Data receives the message. It returns nil, to which go-smtp replies 250, only once the message is
// synced to disk.
func (s *session) Data(r io.Reader) error {
	s.mu.Lock()
	mail := s.mail
	s.running = true
	s.mu.Unlock()
	err := s.receive(r, mail)
	s.mu.Lock()
	s.running = false
	s.aborted = s.aborted || errors.Is(err, smtp.ErrDataReset)
	s.mu.Unlock()
	if err != nil {
		return replyFor(err)
	}
	return nil
}

// receive receives the message and logs the outcome.
func (s *session) receive(r io.Reader, mail *transaction) error {
	if mail == nil || len(mail.rcpts) == 0 {
		return replyNeedRcpt()
	}
	s.wire.Begin(s.server.config.Limits.Data)
	start := time.Now()
	size, letters, err := s.server.accept(r, *mail, s.trace())
	log := s.server.config.Logger.With("remote", s.remote(), "from", mail.from, "duration", time.Since(start))
	if err != nil {
		log.Warn("message not accepted", "bytes", size, "status", replyFor(err).Code, "err", err)
		return err
	}
	s.server.accepted.Add(uint64(len(letters)))
	for i, l := range letters { // one for each recipient
		log.Info("message accepted", "rcpt", l.Rcpt, gateway.LogVM(mail.rcpts[i].vm), "queue_id", l.QueueID,
			"bytes", size+int64(len(l.Head)))
	}
	return nil
}

// Reset ends the transaction. If Data still runs, the client has aborted a message between two
// chunks (RFC 3030). go-smtp would then reply to the next message with the outcome of the aborted
// one, so this session accepts no next message.
func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail = nil
	s.aborted = s.aborted || s.running
	s.wire.End()
}

// Logout ends the session.
func (s *session) Logout() error { return nil }

func (s *session) remote() string {
	addr := s.conn.Conn().RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

func (s *session) trace() trace {
	return trace{helo: s.conn.Hostname(), remote: s.remote(), by: s.server.config.Domain, now: time.Now()}
}

// accept stages, checks and commits one message.
func (s *Server) accept(r io.Reader, mail transaction, t trace) (size int64, letters []mailbox.Letter, err error) {
	defer func() {
		if p := recover(); p != nil { // go-smtp's recovery sends another reply and closes
			s.config.Logger.Error("message handler panicked", "err", p, "stack", string(debug.Stack()))
			err = replyTemporary()
		}
	}()
	staged, err := s.config.Store.Stage()
	if err != nil {
		return 0, nil, err
	}
	defer staged.Remove()
	in := &lineCheck{r: r}
	if size, err = io.Copy(staged, in); err != nil {
		return size, nil, err
	}
	if in.bare || in.last == '\r' {
		return size, nil, replyBareLine()
	}
	if size > s.config.MaxMessageBytes {
		return size, nil, replyTooBig()
	}
	subject := subject(in.first)
	for _, rcpt := range mail.rcpts {
		id := mailbox.NewQueueID(t.now)
		letters = append(letters, mailbox.Letter{
			VM: rcpt.vm.ID, QueueID: id, From: mail.from, Rcpt: rcpt.address, Subject: subject,
			Head: t.head(id, mail.from, rcpt.address), Received: t.now,
		})
	}
	if err := s.policy.stillExist(mail.rcpts); err != nil {
		return size, nil, err
	}
	return size, letters, s.config.Store.Commit(staged, letters)
}

// maxFirstBytes of a message are kept in memory to find its subject.
const maxFirstBytes = 32 << 10

// lineCheck reads a message, keeps its first bytes and finds any bare CR or LF. A message with one
// is refused: SMTP smuggling relies on servers that disagree on where a line ends.
type lineCheck struct {
	r     io.Reader
	first []byte
	last  byte
	bare  bool
}

func (c *lineCheck) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for _, b := range p[:n] {
		if (b == '\n') != (c.last == '\r') {
			c.bare = true
		}
		c.last = b
	}
	if room := maxFirstBytes - len(c.first); room > 0 {
		c.first = append(c.first, p[:min(n, room)]...)
	}
	if c.bare && !errors.Is(err, io.EOF) && err == nil {
		return n, replyBareLine()
	}
	return n, err // io.Copy compares io.EOF, and go-smtp's errors are replies
}
