package imapd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// pipes is a listener whose connections hold nothing: a server that writes waits for its client to
// read.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// serve serves connections until the test ends.
func (f *fixture) serve(t *testing.T) *pipes {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	ended := make(chan error)
	go func() { ended <- f.Serve(gatewaytest.Listener(l, f.vm)) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		gatewaytest.Must(t, f.Shutdown(ctx))
		gatewaytest.Must(t, <-ended)
		if f.log.Count("imap session panicked") > 0 {
			t.Error(f.log)
		}
	})
	return l
}

// client speaks IMAP line by line.
type client struct {
	net.Conn
	r *bufio.Reader
	t *testing.T
}

// dial opens INBOX.
func (p *pipes) dial(t *testing.T) *client {
	t.Helper()
	near, far := net.Pipe()
	p.conns <- far
	c := &client{near, bufio.NewReader(near), t}
	t.Cleanup(func() { near.Close() })
	gatewaytest.Must(t, near.SetDeadline(time.Now().Add(time.Minute)))
	c.line("* PREAUTH")
	c.command("SELECT INBOX")
	return c
}

func (c *client) send(command string) {
	c.t.Helper()
	_, err := io.WriteString(c, "a "+command+"\r\n")
	gatewaytest.Must(c.t, err)
}

// line reads a line, which must begin so.
func (c *client) line(begin string) string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	gatewaytest.Must(c.t, err)
	if !strings.HasPrefix(line, begin) {
		c.t.Fatalf("%q, want %q", line, begin)
	}
	return strings.TrimRight(line, "\r\n")
}

// rest reads up to the end of a command, which must be OK, and returns the lines before it that begin
// with "*".
func (c *client) rest() string {
	c.t.Helper()
	var lines []string
	for {
		line := c.line("")
		if strings.HasPrefix(line, "a ") {
			if !strings.HasPrefix(line, "a OK") {
				c.t.Fatal(line)
			}
			return strings.Join(lines, "\n")
		}
		if strings.HasPrefix(line, "* ") {
			lines = append(lines, line)
		}
	}
}

func (c *client) command(command string) string {
	c.t.Helper()
	c.send(command)
	return c.rest()
}

// expunge removes a message.
func (c *client) expunge(seq int) {
	c.t.Helper()
	c.command(fmt.Sprintf(`STORE %d +FLAGS.SILENT (\Deleted)`, seq))
	c.command("EXPUNGE")
}

func (c *client) expect(command, want string) {
	c.t.Helper()
	if got := c.command(command); got != want {
		c.t.Errorf("%s: %q, want %q", command, got, want)
	}
}

// long is more than a session writes at once, and has a file of its own.
var long = "Subject: long\r\n\r\n" + strings.Repeat("0123456789abcd\r\n", 80<<10)

// A message that another session expunges while a response is sent is left out of it.
func TestVanishedDuringFetch(t *testing.T) {
	f := newFixture(t, long, "Subject: two\r\n\r\n2\r\n", "Subject: three\r\n\r\n3\r\n")
	l := f.serve(t)
	one, other := l.dial(t), l.dial(t)
	one.send("FETCH 1:3 (UID BODY.PEEK[])")
	one.line("* 1 FETCH (UID 1 BODY[] {") // the server waits to send more of the first message
	other.expunge(2)
	if got := one.rest(); !strings.HasPrefix(got, "* 3 FETCH (UID 3 ") || strings.Contains(got, "\n") {
		t.Errorf("behind the first message: %q", got)
	}
	one.expect("NOOP", "* 2 EXPUNGE")
	one.expect("FETCH 2 (UID)", "* 2 FETCH (UID 3)")
}

// A message that another session expunges while STORE sends the flags had these flags before.
func TestVanishedDuringStore(t *testing.T) {
	f := newFixture(t, "\r\n1", "\r\n2", "\r\n3")
	l := f.serve(t)
	one, other := l.dial(t), l.dial(t)
	one.send(`STORE 1:3 +FLAGS (\Flagged)`)
	one.line("* 1 FETCH")
	other.expunge(2)
	if got := one.rest(); strings.Count(got, `\Flagged`) != 2 || strings.Contains(got, "EXPUNGE") {
		t.Errorf("behind the first message: %q", got)
	}
	one.expect("NOOP", "* 2 EXPUNGE")
	one.expect("FETCH 1:* (UID FLAGS)", `* 1 FETCH (UID 1 FLAGS (\Flagged))`+"\n"+`* 2 FETCH (UID 3 FLAGS (\Flagged))`)
}

// A session that was not yet sent an EXPUNGE goes on with its own numbers.
func TestVanishedBefore(t *testing.T) {
	for _, test := range []struct{ command, want, poll string }{
		{"FETCH 1:3 (UID)", "* 1 FETCH (UID 1)\n* 3 FETCH (UID 3)", "* 2 EXPUNGE"},
		{`STORE 2:3 +FLAGS (\Flagged)`, `* 3 FETCH (UID 3 FLAGS (\Flagged))`, "* 2 EXPUNGE\n" + `* 2 FETCH (UID 3 FLAGS (\Flagged))`},
		{`STORE 2 +FLAGS (\Flagged)`, "", "* 2 EXPUNGE"},
		{"SEARCH BODY needle", "* SEARCH 1 3", "* 2 EXPUNGE"},
		{"UID SEARCH ALL", "* SEARCH 1 3\n* 2 EXPUNGE", ""}, // with UIDs the numbers may change
		{"UID EXPUNGE 2", "* 2 EXPUNGE", ""},
		{"UID EXPUNGE 2,99", "* 2 EXPUNGE", ""},
		{"EXPUNGE", "* 2 EXPUNGE", ""},
	} {
		f := newFixture(t, "\r\nneedle", "\r\nneedle", "\r\nneedle")
		l := f.serve(t)
		one, other := l.dial(t), l.dial(t)
		other.expunge(2)
		one.expect(test.command, test.want)
		one.expect("NOOP", test.poll)
		left := f.box.Snapshot().Entries
		_, first := left.Find(1)
		_, third := left.Find(3)
		if left.Len() != 2 || !first || !third {
			t.Errorf("%s leaves %+v", test.command, left)
		}
	}
}

// Two sessions that remove the same message both see it go, once.
func TestExpungeTwice(t *testing.T) {
	f := newFixture(t, "\r\n1", "\r\n2")
	l := f.serve(t)
	one, other := l.dial(t), l.dial(t)
	one.command(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	other.expect("EXPUNGE", "* 1 EXPUNGE")
	one.expect("UID EXPUNGE 1", "* 1 EXPUNGE")
	one.expect("EXPUNGE", "")
	other.expect("UID EXPUNGE 1", "")
}

// A body that cannot be read to the end of its literal ends the connection: what follows would be
// taken for the rest.
func TestReadErrorInLiteral(t *testing.T) {
	f := newFixture(t, long, "\r\n2")
	c := f.serve(t).dial(t)
	c.send("FETCH 1:2 (BODY.PEEK[])")
	c.line("* 1 FETCH (BODY[] {")
	gatewaytest.Must(t, os.Truncate(f.file(t, 1), 100)) // the server waits to send what it has read so far
	rest, err := io.ReadAll(c.r)
	if err != nil || len(rest) == 0 || len(rest) >= len(long) || !strings.HasPrefix(long, string(rest)) {
		t.Errorf("%d bytes of %d and the error %v", len(rest), len(long), err)
	}
}
