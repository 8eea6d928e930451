package relay

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// session is a connection to a mail server, ready for messages.
type session struct {
	host   string
	conn   *boundedConn
	client *smtp.Client
	secure bool
	stop   func() bool
}

// minRate is what a server must take of a message, in bytes per second.
const minRate = 10 << 10

// open connects to one server and greets it: with TLS if the server has it, verified or not (RFC 7435),
// and without if that fails; for one that is strict, with verified TLS only.
func (q *Queue) open(ctx context.Context, s server) (*session, *failure) {
	addr := net.JoinHostPort(s.addr.String(), q.config.port)
	config := &tls.Config{ServerName: s.host, InsecureSkipVerify: !s.strict, RootCAs: q.config.roots} //nolint:gosec // opportunistic: better than none
	opened, err := q.dial(ctx, s.host, addr, config, s.strict)
	if errors.Is(err, errTLS) && !s.strict {
		opened, err = q.dial(ctx, s.host, addr, nil, false)
	}
	if err != nil {
		f, _ := failureOf(s.host, err)
		f.permanent = false // of this server; others may be better, or this one later
		if strings.HasPrefix(f.status, "5") {
			f.status = "4" + f.status[1:]
		}
		return nil, f
	}
	return opened, nil
}

var errTLS = errors.New("TLS failed")

// dial connects to an address and greets; config is for STARTTLS, nil: none is made.
func (q *Queue) dial(ctx context.Context, host, addr string, config *tls.Config, required bool) (_ *session, err error) {
	dialer := net.Dialer{Timeout: q.config.Times.Connect}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn := &boundedConn{Conn: raw, step: q.config.Times.Command}
	conn.begin(10 * q.config.Times.Command)
	s := &session{host: host, conn: conn, stop: context.AfterFunc(ctx, func() { _ = raw.Close() })}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := s.greet(q, conn); err != nil {
		return nil, err
	}
	offered, _ := s.client.Extension("STARTTLS")
	switch {
	case config == nil || !offered && !required:
		return s, nil
	case !offered:
		return nil, errors.New("the server does not offer STARTTLS")
	}
	return s, s.startTLS(ctx, q, config)
}

func (s *session) greet(q *Queue, conn net.Conn) error {
	s.client = smtp.NewClient(conn)
	s.client.CommandTimeout, s.client.SubmissionTimeout = q.config.Times.Command, q.config.Times.Final
	if err := s.client.Hello(q.config.Domain); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	return nil
}

// startTLS goes on in TLS. The client of the library can do so only under the name localhost.
func (s *session) startTLS(ctx context.Context, q *Queue, config *tls.Config) error {
	_ = s.conn.SetDeadline(time.Now().Add(q.config.Times.Command)) // boundedConn: no error
	if _, err := io.WriteString(s.conn, "STARTTLS\r\n"); err != nil {
		return fmt.Errorf("%w: %w", errTLS, err)
	}
	// What the server sends behind its reply is not of the TLS session, and dropped.
	if _, _, err := textproto.NewReader(bufio.NewReader(s.conn)).ReadResponse(220); err != nil {
		return fmt.Errorf("%w: %w", errTLS, err)
	}
	secure := tls.Client(s.conn, config)
	ctx, cancel := context.WithTimeout(ctx, q.config.Times.Command)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", errTLS, err)
	}
	s.secure = true
	return s.greet(q, &greeted{Conn: secure})
}

// greeted is a connection on which the greeting is read once more, since the client waits for one.
type greeted struct {
	net.Conn
	once sync.Once
}

// Read implements net.Conn.
func (g *greeted) Read(p []byte) (n int, err error) {
	g.once.Do(func() { n = copy(p, "220 again\r\n") })
	if n > 0 {
		return n, nil
	}
	return g.Conn.Read(p)
}

// send sends one message. The failures are by recipient, nil for those who have it. broken means that the
// connection is of no use any more.
func (s *session) send(q *Queue, r record, to []string, message *io.SectionReader) (failures []*failure, broken bool) {
	s.conn.begin(q.config.Times.Final + time.Duration(len(to)+10)*q.config.Times.Command + time.Duration(message.Size()/minRate)*time.Second)
	failures = make([]*failure, len(to))
	all := func(f *failure, broken bool) ([]*failure, bool) {
		for i := range failures {
			if failures[i] == nil {
				failures[i] = f
			}
		}
		return failures, broken
	}
	fail := func(err error) ([]*failure, bool) { return all(failureOf(s.host, err)) }
	if f := s.unfit(r, message.Size()); f != nil {
		return all(f, false)
	}
	if err := s.client.Mail(r.From, &smtp.MailOptions{Size: message.Size(), UTF8: r.UTF8}); err != nil {
		return s.reset(fail(err))
	}
	accepted := 0
	for i, address := range to {
		err := s.client.Rcpt(address, nil)
		if err == nil {
			accepted++
			continue
		}
		if failures[i], broken = failureOf(s.host, err); broken {
			return all(failures[i], true)
		}
	}
	if accepted == 0 {
		return s.reset(failures, false)
	}
	data, err := s.client.Data()
	if err != nil {
		return s.reset(fail(err))
	}
	_, err = io.Copy(data, message)
	if err == nil {
		_, err = data.CloseWithResponse()
	} else {
		err = fmt.Errorf("send message: %w", err) // and nothing ends the message
	}
	if reply, ok := errors.AsType[*smtp.SMTPError](err); err == nil || ok && reply.Code/100 == 2 { // also not 250: RFC 5321 §4.2.1
		return failures, false
	}
	f, broken := failureOf(s.host, err)
	f.maybe = true
	return all(f, broken)
}

// unfit returns why a server cannot take a message that it has not seen.
func (s *session) unfit(r record, size int64) *failure {
	if utf8, _ := s.client.Extension("SMTPUTF8"); r.UTF8 && !utf8 {
		f := permanent("5.6.7", "the server does not take addresses in UTF-8")
		f.host = s.host
		return f
	}
	if most, ok := s.client.MaxMessageSize(); ok && most > 0 && size > int64(most) {
		f := permanent("5.3.4", "the message has %d bytes, and the server takes %d", size, most)
		f.host = s.host
		return f
	}
	return nil
}

// reset ends a transaction that sent no message.
func (s *session) reset(failures []*failure, broken bool) ([]*failure, bool) {
	if !broken && s.client.Reset() != nil {
		broken = true
	}
	return failures, broken
}

// quit ends the session in the proper way, but does not wait for long.
func (s *session) quit() {
	s.client.CommandTimeout = min(s.client.CommandTimeout, 5*time.Second)
	_ = s.client.Quit() // it is closed next
	s.close()
}

func (s *session) close() {
	s.stop()
	_ = s.conn.Close() // nothing waits to be written
}

// maxReplyBytes is what a server may send for one message: replies, and TLS records around them.
const maxReplyBytes = 256 << 10

// boundedConn bounds what a server can have this host wait for and read.
type boundedConn struct {
	net.Conn
	step  time.Duration // for one write
	end   time.Time     // for all
	bytes int           // left to read
}

// begin sets the limits for what follows.
func (c *boundedConn) begin(most time.Duration) {
	c.end, c.bytes = time.Now().Add(most), maxReplyBytes
}

// Read implements net.Conn.
func (c *boundedConn) Read(p []byte) (int, error) {
	if c.bytes <= 0 {
		return 0, errors.New("the server replies without end")
	}
	n, err := c.Conn.Read(p[:min(len(p), c.bytes)])
	c.bytes -= n
	return n, err //nolint:wrapcheck // a net.Conn's
}

// Write implements net.Conn.
func (c *boundedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(c.bounded(time.Now().Add(c.step))); err != nil {
		return 0, err //nolint:wrapcheck // as above
	}
	return c.Conn.Write(p)
}

// SetDeadline implements net.Conn: it is for reads, and none is later than the end.
func (c *boundedConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(c.bounded(t)) }

func (c *boundedConn) bounded(t time.Time) time.Time {
	if t.IsZero() || t.After(c.end) {
		return c.end
	}
	return t
}
