package relay

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// talk serves a connection up to a command, with replies that any server gives, and returns true once it
// has come.
func talk(c net.Conn, until string) (*bufio.Reader, bool) {
	r := bufio.NewReader(c)
	fmt.Fprint(c, "220 hello\r\n")
	for {
		line, err := r.ReadString('\n')
		switch verb := strings.ToUpper(strings.TrimSpace(line)); {
		case err != nil:
			return r, false
		case strings.HasPrefix(verb, until):
			return r, true
		case strings.HasPrefix(verb, "EHLO"):
			fmt.Fprint(c, "250-hello\r\n250-STARTTLS\r\n250 8BITMIME\r\n")
		case verb == "STARTTLS":
			fmt.Fprint(c, "454 not now\r\n")
		case verb == "DATA":
			fmt.Fprint(c, "354 go\r\n")
			for line != ".\r\n" && err == nil {
				line, err = r.ReadString('\n')
			}
			if until == "." {
				return r, err == nil
			}
			fmt.Fprint(c, "250 ok\r\n")
		default:
			fmt.Fprint(c, "250 ok\r\n")
		}
	}
}

func flood(c net.Conn, line string) {
	for {
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

// Whatever a server does, nothing is lost, nobody gets a report, and a server that works gets the
// message once.
func TestBadServers(t *testing.T) {
	t.Parallel()
	at := func(verb, answer string) func(net.Conn) {
		return func(c net.Conn) {
			if _, ok := talk(c, verb); ok {
				fmt.Fprint(c, answer)
				_, _ = io.Copy(io.Discard, c)
			}
		}
	}
	closing := func(verb string) func(net.Conn) { return func(c net.Conn) { talk(c, verb) } }
	for name, f := range map[string]func(net.Conn){
		"sends nothing":        func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"closes":               func(net.Conn) {},
		"is busy":              func(c net.Conn) { fmt.Fprint(c, "421 4.3.2 busy\r\n") },
		"refuses all":          func(c net.Conn) { fmt.Fprint(c, "554 5.7.1 go away\r\n") },
		"is no mail server":    func(c net.Conn) { flood(c, "HTTP/1.1 400 Bad Request\r\n") },
		"sends junk":           func(c net.Conn) { flood(c, "\x00\xff\x16\x03\x01") },
		"greets without end":   func(c net.Conn) { flood(c, "220-hello\r\n") },
		"EHLO without end":     func(c net.Conn) { talk(c, "EHLO"); flood(c, "250-X-A\r\n") },
		"EHLO refused":         at("EHLO", "550 no\r\n"),
		"TLS that is none":     at("STARTTLS", "220 go\r\n250 ok\r\n250 ok\r\n"),
		"TLS hangs":            at("STARTTLS", "220 go\r\n"),
		"MAIL refused for now": at("MAIL", "451 4.7.1 later\r\n"),
		"MAIL hangs":           at("MAIL", ""),
		"RCPT closes":          closing("RCPT"),
		"RCPT 421":             at("RCPT", "421 4.7.0 too many\r\n"),
		"DATA refused for now": at("DATA", "451 later\r\n"),
		"DATA closes":          closing("DATA"),
		"DATA is taken early":  at("DATA", "250 ok\r\n"),
		"closes in the middle": func(c net.Conn) {
			if r, ok := talk(c, "DATA"); ok {
				fmt.Fprint(c, "354 go\r\n")
				_, _ = r.ReadString('\n')
			}
		},
		"closes after the message":     closing("."),
		"no reply to the message":      at(".", ""),
		"replies 354 to the message":   at(".", "354 more\r\n"),
		"replies junk to the message":  at(".", "2 5 0\r\n"),
		"replies 25 to the message":    at(".", "25\r\n"),
		"replies by halves":            at(".", "250-a\r\n251 b\r\n"),
		"replies without end":          func(c net.Conn) { talk(c, "."); flood(c, "250-yes\r\n") },
		"replies in one endless line":  func(c net.Conn) { talk(c, "."); flood(c, "250 yes") },
		"refuses the message for now":  at(".", "452 4.3.1 no room\r\n"),
		"a reply without its line end": at(".", "250 ok"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good := new(sink).serve(t, "127.0.0.2", "", nil)
			var n atomic.Int32
			port := raw(t, "127.0.0.1", "", func(c net.Conn) {
				if n.Add(1) == 1 {
					f(c)
				} else {
					pass(c, "127.0.0.2:"+good.port)
				}
			})
			r := start(t, port, func(c *Config) { c.Times.Command, c.Times.Final = 300*time.Millisecond, 300*time.Millisecond }, "far.example. A 127.0.0.1")
			r.send(t, "one", "x@far.example")
			// On a slow machine the limits may end the good sessions as well.
			gatewaytest.WaitFor(t, "the message", func() bool { return len(good.all()) > 0 && r.Waiting() == 0 })
			r.reports(t, 0)
		})
	}
}

// pass copies a connection to another server.
func pass(c net.Conn, to string) {
	other, err := net.Dial("tcp", to) //nolint:noctx // on loopback
	if err != nil {
		return
	}
	defer other.Close()
	go func() { _, _ = io.Copy(other, c); other.(*net.TCPConn).CloseWrite() }()
	_, _ = io.Copy(c, other)
}

// What a server refuses for good is reported with its reply, whatever that has in it.
func TestPermanentReplies(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ verb, reply, want string }{
		"MAIL":         {"MAIL", "550 5.7.1 not from you\r\n", "550 5.7.1 not from you"},
		"RCPT":         {"RCPT", "550-5.1.1 no\r\n550 5.1.1 such user\r\n", "550 5.1.1 no such user"},
		"DATA":         {"DATA", "554 no\r\n", "554 5.0.0 no"},
		"message":      {".", "554 5.6.0 \x1b[31mbad\x00\xff\r\n", "554 5.6.0 ?[31mbad??"},
		"wrong status": {".", "554 2.0.0 fine\r\n", "554 5.0.0 fine"},
		"a boundary":   {".", "554-a\r\n554---=_x--\r\n554 b\r\n", "554 5.0.0 a --=_x-- b"},
		"long":         {".", "554-" + strings.Repeat("y", 900) + "\r\n554 z\r\n", "554 5.0.0 " + strings.Repeat("y", 400)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := raw(t, "127.0.0.1", "", func(c net.Conn) {
				if _, ok := talk(c, tt.verb); ok {
					fmt.Fprint(c, tt.reply)
					_, _ = io.Copy(io.Discard, c)
				}
			})
			r := start(t, port, func(c *Config) { c.Times.Command = 2 * time.Second }, "far.example. A 127.0.0.1")
			r.send(t, "one", "x@far.example")
			if report := r.reports(t, 1)[0]; !strings.Contains(report, "Diagnostic-Code: smtp; "+tt.want) {
				t.Errorf("no %q in\n%s", tt.want, report)
			}
			r.waitEmpty(t)
		})
	}
}

// served is a connection on which a server has sent everything already.
type served struct{ io.Reader }

func (served) Write(p []byte) (int, error)      { return len(p), nil }
func (served) Close() error                     { return nil }
func (served) LocalAddr() net.Addr              { return nil }
func (served) RemoteAddr() net.Addr             { return nil }
func (served) SetDeadline(time.Time) error      { return nil }
func (served) SetReadDeadline(time.Time) error  { return nil }
func (served) SetWriteDeadline(time.Time) error { return nil }

// Whatever a server sends, it counts as delivered only if the last reply is a 250, a failure is one line of
// printable ASCII, and no more than the limit is read.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		"220 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n250 f\r\n", "220 a\r\n250-b\r\n250-SIZE 10\r\n250 SMTPUTF8\r\n250 c\r\n550 5.1.1 d\r\n250 rset\r\n",
		"554 5.7.1 \xff\x00\r\n", "220 a\r\n502 b\r\n250 c\r\n421 4.0.0 d\r\n", "220-\r\n220 \r\n", "220 a\r\n250-b\r\n250 SIZE -1\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		rest := bytes.NewReader(said)
		conn := &boundedConn{Conn: served{rest}, step: time.Minute}
		conn.begin(time.Minute)
		q := &Queue{config: Config{Domain: us, Times: DefaultTimes()}}
		s := &session{host: "mx.example", conn: conn, stop: func() bool { return true }}
		if err := s.greet(q, conn); err != nil {
			checkFailure(t, err)
			return
		}
		failures, _ := s.send(q, record{From: "a@b.example"}, []string{"x@c.example", "y@c.example"}, io.NewSectionReader(strings.NewReader("A: b\r\n\r\nc\r\n"), 0, 11))
		for _, f := range failures {
			if f == nil && !bytes.Contains(said, []byte("354")) {
				t.Errorf("delivered without a 354: %q", said)
			}
			if f != nil {
				checkFailure(t, f)
			}
		}
	})
}

func checkFailure(t *testing.T, err error) {
	t.Helper()
	f, ok := err.(*failure) //nolint:errorlint // as it is made
	if !ok {
		f, _ = failureOf("mx.example", err)
	}
	if len(f.text) > maxTextBytes || strings.ContainsFunc(f.text, func(c rune) bool { return c < ' ' || c > '~' }) || len(f.status) < 5 || f.permanent != (f.status[0] == '5') {
		t.Errorf("%+v", f)
	}
}
