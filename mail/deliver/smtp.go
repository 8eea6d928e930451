package deliver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"lodge/gateway"
)

// maxReplyBytes is how much a server in a guest may send for one message, or for its greeting.
const maxReplyBytes = 64 << 10

// smtpRoute is a Route into the VM's own SMTP or LMTP (RFC 2033) server. A message has one recipient, so
// LMTP gives one reply.
//
// A 2xx reply makes a message delivered, 5xx refused; all else waits. When the connection or the host
// breaks after the message was sent and before its reply was recorded, it is sent again: SMTP has no
// means to ask (RFC 1047). So a server may get a message twice, with the same Message-ID and queue id.
type smtpRoute struct {
	raw    net.Conn
	client *smtp.Client
	answer *meter
	step   time.Duration
	silent bool // the server has answered all there was, so that QUIT makes sense
	used   bool
}

// openSMTP connects and greets.
func openSMTP(ctx context.Context, config Config, m gateway.VM, to gateway.MailRoute) (Route, error) {
	ctx, cancel := context.WithTimeout(ctx, config.Times.Connect)
	defer cancel()
	raw, err := config.Dial(ctx, m, to.Port)
	if err != nil {
		return nil, at(stageConnect, fmt.Errorf("dial: %w", err))
	}
	s := &smtpRoute{raw: raw, answer: &meter{r: raw}, step: config.Times.Step}
	s.answer.left.Store(maxReplyBytes)
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	if to.Scheme == "lmtp" {
		s.client = smtp.NewClientLMTP(limited{raw, s.answer})
	} else {
		s.client = smtp.NewClient(limited{raw, s.answer})
	}
	s.client.CommandTimeout, s.client.SubmissionTimeout = config.Times.Step, config.Times.Verdict
	if err := s.client.Hello(config.Domain); err != nil {
		s.Close()
		return nil, at(stageConnect, fmt.Errorf("greet: %w", err))
	}
	s.silent = true
	return s, nil
}

// Deliver sends a message. The Return-Path and Delivered-To on its top are left out: they are for the
// last server to write, and Postfix takes a Delivered-To of its own for a loop.
func (s *smtpRoute) Deliver(ctx context.Context, m Message) error {
	s.answer.left.Store(maxReplyBytes)
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	s.silent = false
	err := s.send(m)
	_, replied := errors.AsType[*smtp.SMTPError](err)
	s.silent = err == nil || replied
	if err != nil {
		return judge(err)
	}
	return nil
}

func (s *smtpRoute) send(m Message) error {
	if s.used { // else the client waits for the replies of LMTP to former recipients too
		if err := s.client.Reset(); err != nil {
			return fmt.Errorf("RSET: %v", err) //nolint:errorlint // a 5xx here is not the message's
		}
	}
	s.used = true
	options := &smtp.MailOptions{Size: m.Bytes, UTF8: !isASCII(m.From + m.Rcpt)}
	if able, _ := s.client.Extension("SMTPUTF8"); options.UTF8 && !able {
		return &Refusal{errors.New("the server does not support SMTPUTF8, which the addresses need")}
	}
	if err := s.client.Mail(m.From, options); err != nil {
		return fmt.Errorf("MAIL: %w", err)
	}
	if err := s.client.Rcpt(m.Rcpt, nil); err != nil {
		return fmt.Errorf("RCPT: %w", err)
	}
	data, err := s.client.Data()
	if err != nil {
		return fmt.Errorf("DATA: %w", err)
	}
	if err := s.copy(data, m); err != nil {
		s.cut() // closing data would end the message as if it were complete
		return fmt.Errorf("send message: %w", err)
	}
	err = data.Close()
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok && reply.Code/100 == 2 { // but not 250
		return nil
	}
	if err != nil {
		return fmt.Errorf("message: %w", err)
	}
	return nil
}

// copy writes the message with canonical line ends and dots stuffed (RFC 5321 §4.5.2), by data.
func (s *smtpRoute) copy(data io.Writer, m Message) error {
	timer := time.AfterFunc(s.step, s.cut)
	defer timer.Stop()
	from := &ticking{Reader: m.Content, timer: timer, step: s.step}
	text, err := withoutEnvelope(from)
	if err != nil {
		return err
	}
	if _, err := io.Copy(data, text); err != nil {
		return err
	}
	if from.n != m.Bytes {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// withoutEnvelope returns a message behind the Return-Path and Delivered-To on its top.
func withoutEnvelope(r io.Reader) (io.Reader, error) {
	text := bufio.NewReaderSize(r, 32<<10)
	for _, name := range []string{"Return-Path: ", "Delivered-To: "} {
		if top, _ := text.Peek(len(name)); string(top) != name { // a shorter message has none
			continue
		}
		if _, err := text.ReadSlice('\n'); err != nil {
			return nil, fmt.Errorf("read %s: %w", strings.TrimSuffix(name, ": "), err)
		}
	}
	return text, nil
}

// judge makes a reply of 5xx to a message a Refusal.
func judge(err error) error {
	err = at(stageWrite, err)
	if reply, ok := errors.AsType[*smtp.SMTPError](err); ok && reply.Code/100 == 5 && reply.Code < 600 {
		return &Refusal{err}
	}
	return err
}

func (s *smtpRoute) cut() { _ = s.raw.Close() } // what is in progress fails

// Close closes the connection. Between messages it sends QUIT, without waiting for the reply.
func (s *smtpRoute) Close() {
	if s.silent {
		_ = s.raw.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // it is closed anyway
		_, _ = io.WriteString(s.raw, "QUIT\r\n")                           // as above
	}
	s.cut()
}

// limited is a connection that is read through a meter.
type limited struct {
	net.Conn
	meter *meter
}

func (l limited) Read(p []byte) (int, error) { return l.meter.Read(p) }

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}
