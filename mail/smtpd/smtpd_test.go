package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

const (
	envelope = "MAIL FROM:<a@b.c>\r\nRCPT TO:<x@blog.lodge.test>\r\n"
	// forged is what a client hides in a message, for a server that takes it for commands.
	forged = "RSET\r\nMAIL FROM:<ceo@bank.example>\r\nRCPT TO:<x@blog.lodge.test>\r\nDATA\r\nSubject: forged\r\n\r\nforged\r\n.\r\n"
)

var blog = gateway.Identity{ID: gateway.ID{1}, Name: "blog"}

// shelf is a Policy that takes mail for blog.lodge.test, and keeps it in memory.
type shelf struct {
	mu      sync.Mutex
	kept    []kept
	clients []Client
	aborted []error
	open    int   // messages that are neither committed nor aborted
	begin   error // of Begin
	write   error // of Message.Write
	commit  error // of Message.Commit
}

type kept struct {
	Envelope Envelope
	Body     string
}

func (s *shelf) Sender(_ context.Context, _ Client, e Envelope) error {
	if e.From.Domain == "refused.example" {
		return Reply{550, "5.7.1", "Sender refused"}
	}
	return nil
}

func (s *shelf) Recipient(_ context.Context, _ Client, _ Envelope, to Recipient) (gateway.Identity, error) {
	if to.Path.Local == "listed" {
		return gateway.Identity{}, Reply{554, "5.7.1", "Client host blocked"}
	}
	if !strings.EqualFold(to.Path.Domain, "blog.lodge.test") && to.Path.Domain != "" {
		return gateway.Identity{}, gateway.NotFound(to.Path.Domain)
	}
	return blog, nil
}

func (s *shelf) Begin(_ context.Context, c Client, e Envelope) (Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begin != nil {
		return nil, s.begin
	}
	s.open++
	s.clients = append(s.clients, c)
	return &paper{shelf: s, envelope: e}, nil
}

func (s *shelf) all() []kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]kept{}, s.kept...)
}

// paper is a Message of a shelf.
type paper struct {
	shelf    *shelf
	envelope Envelope
	bytes.Buffer
}

func (p *paper) Write(b []byte) (int, error) {
	if p.shelf.write != nil {
		return 0, p.shelf.write
	}
	return p.Buffer.Write(b)
}

func (p *paper) Commit() (string, error) {
	p.shelf.mu.Lock()
	defer p.shelf.mu.Unlock()
	if p.shelf.commit != nil {
		return "", p.shelf.commit
	}
	p.shelf.open--
	p.shelf.kept = append(p.shelf.kept, kept{p.envelope, p.String()})
	return digest(p.Bytes()), nil
}

// digest is the queue id of a message in these tests.
func digest(body []byte) string { return fmt.Sprintf("%x", sha256.Sum256(body)) }

func (p *paper) Abort(err error) {
	p.shelf.mu.Lock()
	defer p.shelf.mu.Unlock()
	p.shelf.open--
	p.shelf.aborted = append(p.shelf.aborted, err)
}

// host is a server on loopback.
type host struct {
	shelf

	t      testing.TB
	addr   string
	server *Server
	log    gatewaytest.Log
}

func testConfig(p Policy) Config {
	limits := DefaultLimits()
	limits.Greet = 0
	return Config{Domain: "lodge.test", Policy: p, MaxMessageBytes: 1 << 20, DSN: true, Limits: limits}
}

func serve(t testing.TB, change func(*Config)) *host {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	return serveOn(t, l, change)
}

func serveOn(t testing.TB, l net.Listener, change func(*Config)) *host {
	t.Helper()
	h := &host{t: t, addr: l.Addr().String()}
	config := testConfig(h)
	config.Logger = h.log.Logger()
	if change != nil {
		change(&config)
	}
	h.server = New(config)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := h.server.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		_ = h.server.Shutdown(t.Context())
		serving.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.open != 0 || h.log.Count("panicked") > 0 {
			t.Errorf("%d messages are neither kept nor aborted; %s", h.open, &h.log)
		}
	})
	return h
}

// client is a raw connection.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (h *host) connect(t testing.TB) *client {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", h.addr)
	gatewaytest.Must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	gatewaytest.Must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return &client{c, t, bufio.NewReader(c)}
}

// dial connects and says EHLO.
func (h *host) dial(t testing.TB) *client {
	t.Helper()
	c := h.connect(t)
	c.want("220")
	c.send("EHLO client.example\r\n")
	c.want("250")
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	gatewaytest.Must(c.t, err)
}

// answer reads a reply, and returns its last line.
func (c *client) answer() (string, error) {
	line, err := c.r.ReadString('\n')
	for err == nil && len(line) > 3 && line[3] == '-' {
		line, err = c.r.ReadString('\n')
	}
	return line, err
}

// want expects one reply for each code.
func (c *client) want(codes ...string) {
	c.t.Helper()
	for _, code := range codes {
		if line, err := c.answer(); err != nil || !strings.HasPrefix(line, code) {
			c.t.Fatalf("got %q, %v; want %s", line, err, code)
		}
	}
}

// ended reads up to the end of the connection, and returns what came.
func (c *client) ended() string {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the connection is still open")
	}
	return string(rest)
}

// wantNothing fails the test if a message was kept.
func (h *host) wantNothing(t testing.TB) {
	t.Helper()
	if all := h.all(); len(all) != 0 {
		t.Errorf("kept: %+v", all)
	}
}

// Each command and what it gets, in one session for each row.
func TestCommands(t *testing.T) {
	h := serve(t, nil)
	mail, rcpt := "MAIL FROM:<a@b.c>", "RCPT TO:<x@blog.lodge.test>"
	for _, test := range []struct {
		name  string
		lines []string // alternating: what is sent, what the reply begins with
	}{
		{"HELO", []string{"HELO x", "250 lodge.test", mail, "250 2.1.0", rcpt, "250 2.1.5"}},
		{"no name", []string{"EHLO", "501 5.5.4", "HELO  ", "501 5.5.4"}},
		{"two names", []string{"EHLO a b", "501 5.5.4"}},
		{"lower case", []string{"mail from:<a@b.c>", "250", "rcpt to:<x@BLOG.lodge.test>", "250"}},
		{"space behind the colon", []string{"MAIL FROM: <a@b.c>", "250"}},
		{"no brackets", []string{"MAIL FROM:a@b.c", "501 5.5.4"}},
		{"no colon", []string{"MAIL <a@b.c>", "501 5.5.4"}},
		{"null sender", []string{"MAIL FROM:<>", "250"}},
		{"null recipient", []string{mail, "250", "RCPT TO:<>", "553 5.1.3"}},
		{"postmaster", []string{mail, "250", "RCPT TO:<PostMaster>", "250"}},
		{"postmaster sends", []string{"MAIL FROM:<postmaster>", "553 5.1.7"}},
		{"source route", []string{mail, "250", "RCPT TO:<@a.example,@b.example:x@blog.lodge.test>", "250"}},
		{"two at", []string{mail, "250", "RCPT TO:<u@@blog.lodge.test>", "553 5.1.3", "RCPT TO:<u@x@blog.lodge.test>", "553 5.1.3"}},
		{"quoted", []string{mail, "250", `RCPT TO:<"a@b c\"\\"@blog.lodge.test>`, "250"}},
		{"sender refused", []string{"MAIL FROM:<x@refused.example>", "550 5.7.1", rcpt, "503 5.5.1"}},
		{"recipient refused", []string{mail, "250", "RCPT TO:<x@example.com>", "550 5.1.1 User unknown"}},
		{"RCPT first", []string{rcpt, "503 5.5.1 Need MAIL command"}},
		{"DATA first", []string{"DATA", "503 5.5.1 Need MAIL command"}},
		{"DATA without RCPT", []string{mail, "250", "DATA", "503 5.5.1 Need RCPT command"}},
		{"nested MAIL", []string{mail, "250", mail, "503 5.5.1 Nested MAIL command"}},
		{"RSET", []string{mail, "250", "RSET", "250 2.0.0", mail, "250"}},
		{"EHLO resets", []string{mail, "250", "EHLO x", "250", mail, "250"}},
		{"SIZE", []string{mail + " SIZE=1048576", "250", "RSET", "250", mail + " SIZE=1048577", "552 5.3.4"}},
		{"SIZE beyond numbers", []string{mail + " SIZE=99999999999999999999", "552 5.3.4", mail + " SIZE=999999999999999999999", "555 5.5.4"}},
		{"SIZE odd", []string{mail + " SIZE=-1", "555 5.5.4", mail + " SIZE=", "555 5.5.4", mail + " SIZE", "555 5.5.4", mail + " SIZE=1 SIZE=1", "555 5.5.4"}},
		{"BODY", []string{mail + " BODY=8BITMIME", "250", "RSET", "250", mail + " body=7bit", "250", "RSET", "250", mail + " BODY=BINARYMIME", "555 5.5.4"}},
		{"AUTH parameter", []string{mail + " AUTH=<>", "555 5.5.4"}},
		{"SMTPUTF8", []string{
			mail + " SMTPUTF8", "250", "RCPT TO:<\u00e9@blog.lodge.test>", "250", "RSET", "250",
			"MAIL FROM:<\u00e9@b.c>", "553 5.6.7", mail, "250", "RCPT TO:<\u00e9@blog.lodge.test>", "553 5.6.7",
		}},
		{"SMTPUTF8 with a value", []string{mail + " SMTPUTF8=1", "555 5.5.4"}},
		{"bad UTF-8", []string{mail + " SMTPUTF8", "250", "RCPT TO:<\xff@blog.lodge.test>", "553 5.1.3", "RCPT TO:<a\u0085b@blog.lodge.test>", "553 5.1.3"}},
		{"control characters", []string{"MAIL FROM:<a\rBcc@b.c>", "553 5.1.7", "MAIL FROM:<a\x00@b.c>", "553 5.1.7"}},
		{"DSN", []string{
			mail + " RET=HDRS ENVID=a+2Bb", "250", rcpt + " NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@z", "250",
			rcpt + " NOTIFY=NEVER,SUCCESS", "555", rcpt + " NOTIFY=X", "555", rcpt + " ORCPT=x", "555", rcpt + " ORCPT=rfc822;+2b", "555", "RSET", "250",
			mail + " RET=ALL", "555", mail + " ENVID=+0D+0A", "555",
		}},
		{"VRFY and others", []string{"VRFY x", "252 2.0.0", "NOOP x", "250", "HELP", "214 2.0.0", "EXPN x", "502 5.5.1", "AUTH PLAIN AGEAYg==", "502 5.5.1", "XCLIENT", "500 5.5.2", "", "500 5.5.2"}},
		{"STARTTLS is not offered", []string{"STARTTLS", "502 5.5.1"}},
		{"LF alone", []string{"NOOP\nNOOP", "500 5.5.2", mail + "\nX", "500 5.5.2"}},
		{"too long an address", []string{"MAIL FROM:<" + strings.Repeat("x", 300) + "@b.c>", "553 5.1.7"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := h.dial(t)
			for i := 0; i < len(test.lines); i += 2 {
				c.send(test.lines[i] + "\r\n")
				c.want(test.lines[i+1])
				for range strings.Count(test.lines[i], "\n") {
					if _, err := c.answer(); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
	c := h.connect(t)
	c.want("220 lodge.test ESMTP")
	c.send("MAIL FROM:<a@b.c>\r\n")
	c.want("503 5.5.1 Send EHLO first")
	h.wantNothing(t)
}

// The Policy gets what the client sent.
func TestEnvelopeOfPolicy(t *testing.T) {
	h := serve(t, nil)
	c := h.dial(t)
	c.send("MAIL FROM:<\"a b\"@b.c> SIZE=50 SMTPUTF8 RET=full ENVID=a+2Bb\r\n" +
		"RCPT TO:<x@blog.lodge.test> NOTIFY=success ORCPT=rfc822;y+3Dz@w\r\nRCPT TO:<x@blog.lodge.test>\r\nDATA\r\n")
	c.want("250", "250", "250", "354")
	c.send("Subject: x\r\n\r\n..\r\n.x\r\n.\r\n")
	c.want("250 2.0.0 OK: queued as " + digest([]byte("Subject: x\r\n\r\n.\r\nx\r\n")))
	want := Envelope{
		From: Path{"a b", "b.c"}, Size: 50, UTF8: true, Return: "FULL", ID: "a+b",
		To: []Recipient{{Path{"x", "blog.lodge.test"}, blog, "SUCCESS", "rfc822;y=z@w"}},
	}
	got := h.all()[0]
	if got.Envelope.From != want.From || got.Envelope.To[0] != want.To[0] || len(got.Envelope.To) != 1 ||
		got.Envelope.Size != want.Size || !got.Envelope.UTF8 || got.Envelope.Return != want.Return || got.Envelope.ID != want.ID {
		t.Errorf("got %+v, want %+v", got.Envelope, want)
	}
	if got.Body != "Subject: x\r\n\r\n.\r\nx\r\n" {
		t.Errorf("body %q", got.Body)
	}
	who := h.clients[0]
	if who.Helo != "client.example" || who.Remote != "127.0.0.1" || who.VM.Known() || who.Protocol(true) != "UTF8SMTP" || who.Protocol(false) != "ESMTP" {
		t.Errorf("client %+v", who)
	}
}

// What the Policy refuses is refused with its reply, and the session continues.
func TestPolicyRefuses(t *testing.T) {
	full := gateway.Errorf(gateway.KindNoSpace, "the disk is full")
	for name, test := range map[string]struct {
		change func(*shelf)
		data   []string
		bdat   string
	}{
		"begin":  {func(s *shelf) { s.begin = full }, []string{"452 4.3.1"}, "452 4.3.1"},
		"write":  {func(s *shelf) { s.write = full }, []string{"354", "452 4.3.1"}, "452 4.3.1"},
		"commit": {func(s *shelf) { s.commit = errors.New("secret") }, []string{"354", "451 4.3.0 Temporary local problem"}, "451 4.3.0"},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, nil)
			test.change(&h.shelf)
			c := h.dial(t)
			c.send(envelope + "DATA\r\n")
			c.want("250", "250")
			c.want(test.data[0])
			if len(test.data) > 1 {
				c.send("Subject: x\r\n\r\nx\r\n.\r\n")
				c.want(test.data[1])
			}
			c.send("RSET\r\n" + envelope + "BDAT 5 LAST\r\nab\r\nxNOOP\r\nBDAT 4\r\nRSETBDAT 0 LAST\r\nQUIT\r\n")
			c.want("250", "250", "250", test.bdat, "250", "503", "503", "221")
			h.wantNothing(t)
		})
	}
}

// Replies wait until the client's pipeline is read, and go out in as few writes as that takes.
func TestRepliesAreBuffered(t *testing.T) {
	h := serve(t, func(c *Config) { c.Limits.Writes = 4 }) // banner, EHLO, one for all below
	c := h.dial(t)
	c.send(strings.Repeat("NOOP\r\n", 50) + envelope)
	for range 50 {
		c.want("250")
	}
	c.want("250", "250")
}
