package smtpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"lodge/gateway"
	"lodge/mail/guard"
)

const (
	maxErrors   = 20     // refusals in one session
	maxCommands = 50_000 // in one session
	lingerFor   = 2 * time.Second
	lingerBytes = 1 << 20

	replyBufferBytes   = 4 << 10
	messageBufferBytes = 32 << 10
)

// session is one connection. One goroutine uses it.
type session struct {
	server *Server
	conn   *guard.Conn
	stream net.Conn // conn, or TLS over it
	in     *reader
	out    *bufio.Writer // is flushed when in has to wait
	peer   gateway.Peer

	client   Client
	mail     *Envelope // since MAIL; nil outside of a transaction
	body     *body     // since the first BDAT of a transaction
	errors   int
	commands int
	ended    bool // nothing is read any more
}

func (s *Server) serve(ctx context.Context, c *guard.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := &session{server: s, conn: c, peer: gateway.PeerOf(c)}
	n.client = Client{VM: gateway.IdentityOf(c), Remote: remote(c)}
	n.use(c)
	defer n.close()
	n.run(ctx)
}

// remote is the client's IP address, or what a pipe calls itself.
func remote(c net.Conn) string {
	addr := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// use makes c the stream that is read and written.
func (s *session) use(c net.Conn) {
	s.stream, s.out = c, bufio.NewWriterSize(c, replyBufferBytes)
	s.in = newReader(c, s.out.Flush)
}

// close ends the session, after a panic too.
func (s *session) close() {
	if p := recover(); p != nil {
		s.server.config.Logger.Error("smtp session panicked", "remote", s.client.Remote, "err", p, "stack", string(debug.Stack()))
	}
	s.reset(errEnded)
	_ = s.out.Flush()    // the client is gone maybe
	_ = s.stream.Close() // as above
	_ = s.conn.Close()   // TLS waits for its last write before it closes this
}

// ErrCut is in the error that Message.Abort gets if the client did not end the message.
var ErrCut = errors.New("the message was not ended")

var errEnded = fmt.Errorf("the session ended: %w", ErrCut)

func (s *session) run(ctx context.Context) {
	s.reply(s.greet())
	for !s.ended {
		line, err := s.in.piece(maxCommandBytes)
		if err != nil {
			s.reply(s.lost(err))
			return
		}
		s.reply(s.execute(ctx, string(line)))
	}
	s.linger()
}

// execute runs one command. The zero Reply: it was sent already.
func (s *session) execute(ctx context.Context, line string) Reply {
	if s.commands++; s.commands > maxCommands { // before it runs: a message that is kept must get its 250
		s.ended = true
		return Reply{421, "4.7.0", "Too many commands in one session"}
	}
	r := s.dispatch(ctx, line)
	if r.refuses() && r.Status != statusTooManyRecipients {
		s.errors++
	}
	if s.errors > maxErrors {
		r = Reply{421, "4.7.0", "Too many errors"}
	}
	s.ended = s.ended || r.Code == 421
	return r
}

// dispatch runs the command in line. Whatever is wrong with the line of a BDAT, its chunk must not be
// run as commands.
func (s *session) dispatch(ctx context.Context, line string) Reply {
	text, whole := strings.CutSuffix(line, "\r\n")
	verb, args := cutWord(text)
	switch {
	case !strings.HasSuffix(line, "\n"):
		s.ended = true
		return Reply{500, "5.5.6", "Line too long"}
	case verb == "BDAT":
		return s.bdat(ctx, args, whole)
	case verb == "DATA" && (!whole || args != ""):
		return s.refuseData(replySyntax("DATA"))
	case !whole:
		return Reply{500, "5.5.2", "Lines must end in CRLF"}
	case s.mail == nil && s.draining():
		return replyShutdown()
	}
	switch verb {
	case "EHLO", "HELO":
		return s.hello(verb, args)
	case "STARTTLS":
		return s.startTLS(ctx, args)
	case "MAIL":
		return s.mailFrom(ctx, args)
	case "RCPT":
		return s.rcptTo(ctx, args)
	case "DATA":
		return s.data(ctx)
	default:
		return s.others(verb)
	}
}

// cutWord returns the first word of a line in upper case, and what follows. Spaces and tabs before it
// do not hide it.
func cutWord(line string) (word, rest string) {
	line = strings.Trim(line, " \t\r\n")
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return strings.ToUpper(line[:i]), strings.TrimLeft(line[i:], " \t")
	}
	return strings.ToUpper(line), ""
}

// reply puts a reply into the buffer, which is sent when the client's commands are used up.
func (s *session) reply(r Reply) {
	if r.Code != 0 {
		_, _ = s.out.WriteString(r.line()) // the next read reports the error
	}
}

func (s *session) draining() bool {
	select {
	case <-s.conn.Draining():
		return true
	default:
		return false
	}
}

func replyShutdown() Reply { return Reply{421, "4.3.2", "Shutting down, try again later"} }

// lost returns the last reply after a read that failed.
func (s *session) lost(err error) Reply {
	s.ended = true
	switch {
	case s.draining():
		return replyShutdown()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Reply{421, "4.4.2", "Timeout exceeded"}
	default:
		return Reply{}
	}
}

// reset ends the transaction. err is why its message, if there is one, is not kept.
func (s *session) reset(err error) {
	if s.body != nil {
		s.body.message.Abort(err)
		s.endBody()
	}
	s.mail = nil
}

// linger closes the sending half and reads on for a moment: a client that is still sending would get
// a reset instead of the last reply.
func (s *session) linger() {
	if s.out.Flush() != nil {
		return
	}
	half, ok := s.stream.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	s.conn.Begin(lingerFor)
	defer s.conn.End()
	_ = s.in.skip(lingerBytes) // whatever it is
}
