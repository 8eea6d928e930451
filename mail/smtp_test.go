package mail

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/gateway/sandboxtest"
)

// talk is a raw SMTP conversation.
type talk struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(tb testing.TB, addr string) *talk {
	tb.Helper()
	c, err := new(net.Dialer).DialContext(tb.Context(), "tcp", addr)
	gatewaytest.Must(tb, err)
	tb.Cleanup(func() { c.Close() })
	gatewaytest.Must(tb, c.SetDeadline(time.Now().Add(time.Minute)))
	return &talk{tb, c, bufio.NewReader(c)}
}

// hello connects and sends EHLO. It returns the reply.
func hello(tb testing.TB, addr string) (*talk, string) {
	tb.Helper()
	c := dial(tb, addr)
	c.expect("220")
	c.send("EHLO client.example\r\n")
	return c, c.expect("250")
}

func (c *talk) send(text string) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one reply, of many lines maybe.
func (c *talk) answer() (string, error) {
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		all.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return all.String(), err
		}
	}
}

func (c *talk) expect(prefix string) string {
	c.t.Helper()
	got, err := c.answer()
	if err != nil || !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, %v; want %s", got, err, prefix)
	}
	return got
}

// ask sends a line and expects a reply.
func (c *talk) ask(line, prefix string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	return c.expect(prefix)
}

func (c *talk) closed() {
	c.t.Helper()
	if rest, err := c.answer(); err == nil {
		c.t.Errorf("still open: %q", rest)
	}
}

// Mail of a real client is recorded byte for byte, below the trace headers.
func TestSwaksByteForByte(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	for name, body := range map[string]string{
		"plain":      "From: a@example.com\r\nSubject: =?utf-8?q?h=C3=A9llo?=\r\n\r\nhello\r\n",
		"dots":       "Subject: dots\r\n\r\n.\r\n..\r\n.dot\r\nend\r\n",
		"eight bits": "Subject: bits\r\n\r\n\xff\xfe\x00\x01 \xc3\xa9\r\n\r\n\r\n",
		"long line":  "Subject: long\r\n\r\n" + strings.Repeat("x", 60_000) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "mail")
			// swaks makes CRLF of LF, doubles leading dots and ends the last line.
			write(t, file, []byte(strings.ReplaceAll(strings.TrimSuffix(body, "\r\n"), "\r\n", "\n")))
			host, port, _ := net.SplitHostPort(f.addr)
			out, err := exec.CommandContext(t.Context(), "swaks", "--server", host, "--port", port, "--helo", "client.example",
				"--from", "a@example.com", "--to", "Anything+tag@BLOG."+domain, "--data", file, "--suppress-data", "--timeout", "10").CombinedOutput()
			if err != nil {
				t.Fatalf("swaks: %v\n%s", err, out)
			}
			m := f.list(t, vm)[0]
			got := string(f.read(t, vm, m.QueueID))
			head, ok := strings.CutSuffix(got, body)
			if !ok {
				t.Fatalf("%q does not end in %q", got, body)
			}
			want := regexp.MustCompile(`^Return-Path: <a@example.com>\r\nDelivered-To: Anything\+tag@BLOG.lodge.localhost\r\n` +
				`Received: from client.example \(\[127.0.0.1\]\)\r\n\tby lodge.localhost with ESMTP id ` + m.QueueID +
				`\r\n\tfor <Anything\+tag@BLOG.lodge.localhost>; .*\r\n$`)
			if !want.MatchString(head) {
				t.Errorf("trace headers: %q", head)
			}
			if m.Bytes != int64(len(got)) || m.From != "a@example.com" {
				t.Errorf("%+v", m)
			}
			if name == "plain" && m.Subject != "héllo" {
				t.Errorf("subject %q", m.Subject)
			}
		})
	}
}

func TestEnvelope(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	f.add(t, "blog")
	gone := f.add(t, "gone")
	if _, err := f.directory.Update(t.Context(), gone.ID, func(m *gateway.VM) error { m.Desired = gateway.Removed; return nil }); err != nil {
		t.Fatal(err)
	}
	mail := "MAIL FROM:<a@b.c>"
	for _, test := range []struct {
		name  string
		lines []string // alternating: what is sent, what must come back
	}{
		{"accepted", []string{mail, "250", "RCPT TO:<x@blog.lodge.localhost>", "250 2"}},
		{"quoted", []string{mail, "250", `RCPT TO:<"a b@c"@blog.lodge.localhost>`, "250 2"}},
		{"final dot", []string{mail, "250", "RCPT TO:<x@blog.lodge.localhost.>", "250 2"}},
		{"bounce", []string{"MAIL FROM:<>", "250", "RCPT TO:<x@Blog.LODGE.localhost>", "250 2"}},
		{"unknown VM", []string{mail, "250", "RCPT TO:<x@nobody.lodge.localhost>", "550 5.1.1 User unknown"}},
		{"removed VM", []string{mail, "250", "RCPT TO:<x@gone.lodge.localhost>", "550 5.1.1 User unknown"}},
		{"below a VM", []string{mail, "250", "RCPT TO:<x@a.blog.lodge.localhost>", "550 5.1.1 User unknown"}},
		{"domain itself", []string{mail, "250", "RCPT TO:<x@lodge.localhost>", "550 5.7.1 Relay access denied"}},
		{"relay", []string{mail, "250", "RCPT TO:<x@example.com>", "550 5.7.1 Relay access denied"}},
		{"relay by suffix", []string{mail, "250", "RCPT TO:<x@blog.evillodge.localhost>", "550 5.7.1 Relay access denied"}},
		{"relay by percent", []string{mail, "250", "RCPT TO:<x%blog.lodge.localhost@example.com>", "550 5.7.1 Relay access denied"}},
		{"UTF-8", []string{mail, "250", "RCPT TO:<\u00e9@blog.lodge.localhost>", "553 5.6.7"}},
		{"SMTPUTF8", []string{mail + " SMTPUTF8", "250", "RCPT TO:<\u00e9@blog.lodge.localhost>", "250 2"}},
		{"postmaster", []string{mail, "250", "RCPT TO:<postmaster>", "250 2", "RCPT TO:<Abuse@lodge.localhost>", "250 2"}},
		{"control character", []string{mail, "250", "RCPT TO:<a\x01\x7f@blog.lodge.localhost>", "553 5.1.3 Bad address syntax"}},
		{"CR in sender", []string{"MAIL FROM:<a\rBcc@b.c>", "553 5.1.7 Bad address syntax"}},
		{"too long", []string{mail, "250", "RCPT TO:<" + strings.Repeat("x", 300) + "@blog.lodge.localhost>", "553 5.1.3 Bad address syntax"}},
		{"two senders", []string{mail, "250", mail, "503 5.5.1 Nested MAIL command"}},
		{"declared too big", []string{mail + " SIZE=53477376", "552 5.3.4"}},
		{"declared big", []string{mail + " SIZE=52428800", "250"}},
		{"no AUTH", []string{"AUTH PLAIN AGEAYg==", "5"}},
		{"no recipient", []string{mail, "250", "DATA", "503 5.5.1 Need RCPT command"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, can := hello(t, f.addr)
			if !strings.Contains(can, "SIZE 52428800") || strings.Contains(can, "AUTH") {
				t.Errorf("EHLO: %q", can)
			}
			for i := 0; i < len(test.lines); i += 2 {
				c.ask(test.lines[i], test.lines[i+1])
			}
		})
	}
}

func TestManyRecipients(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	one, two := f.add(t, "one"), f.add(t, "two")
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<>", "250")
	for _, to := range []string{"a@one", "b@one", "a@one", "a@two"} {
		c.ask("RCPT TO:<"+to+"."+domain+">", "250")
	}
	c.ask("DATA", "354")
	c.ask("Subject: x\r\n\r\nbody\r\n.", "250")
	if n, m := len(f.list(t, one)), len(f.list(t, two)); n != 2 || m != 1 {
		t.Errorf("%d and %d messages, want 2 and 1", n, m)
	}
	for range 100 - 4 {
		c.ask("NOOP", "250")
	}
	c.ask("MAIL FROM:<>", "250")
	for i := range 100 {
		c.ask(fmt.Sprintf("RCPT TO:<u%d@one.%s>", i, domain), "250")
	}
	c.ask("RCPT TO:<late@one."+domain+">", "452")
}

// Lines must end in CRLF: whatever else a smuggler tries, one message stays one message, or none.
func TestBareLineEnds(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	for name, data := range map[string]string{
		"bare LF":        "Subject: x\n\nbody\r\n.\r\n",
		"LF dot LF":      "Subject: x\r\n\r\nbody\n.\nMAIL FROM:<evil@b.c>\r\n.\r\n",
		"LF dot CRLF":    "Subject: x\r\n\r\nbody\n.\r\nMAIL FROM:<evil@b.c>\r\n.\r\n",
		"CR dot CR":      "Subject: x\r\n\r\nbody\r.\rMAIL FROM:<evil@b.c>\r\n.\r\n",
		"CRLF dot LF":    "Subject: x\r\n\r\nbody\r\n.\nMAIL FROM:<evil@b.c>\r\n.\r\n",
		"CRCRLF dot":     "Subject: x\r\n\r\nbody\r\r\n.\r\nMAIL FROM:<evil@b.c>\r\n.\r\n",
		"bare CR at end": "Subject: x\r\n\r\nbody\r\r\n.\r\n\r\n.\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := hello(t, f.addr)
			c.ask("MAIL FROM:<a@b.c>", "250")
			c.ask("RCPT TO:<x@blog."+domain+">", "250")
			c.ask("DATA", "354")
			c.send(data)
			c.expect("554 5.6.0 Bare CR or LF received")
		})
	}
	if n := len(f.list(t, vm)); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func TestChunking(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	c, _ := hello(t, f.addr)
	begin := func() {
		c.ask("MAIL FROM:<a@b.c>", "250")
		c.ask("RCPT TO:<x@blog."+domain+">", "250")
	}
	begin()
	c.ask("BDAT 14\r\nSubject: x\r\n\r\n"[:len("BDAT 14\r\nSubject: x\r\n\r\n")-2], "250")
	c.ask("BDAT 6 LAST\r\n.ab.\r\n"[:len("BDAT 6 LAST\r\n.ab.\r\n")-2], "250")
	if got := f.read(t, vm, f.list(t, vm)[0].QueueID); !bytes.HasSuffix(got, []byte("\r\nSubject: x\r\n\r\n.ab.\r\n")) {
		t.Errorf("got %q", got)
	}
	begin()
	c.send("BDAT 5\r\nabcde")
	c.expect("250")
	c.ask("RSET", "250") // given up: nothing may come of it
	begin()
	c.send("BDAT 5\r\nabcde")
	c.expect("250")
	c.ask("QUIT", "221")
	if n := len(f.list(t, vm)); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func TestTooBig(t *testing.T) {
	const limit = 5 << 20 // reading what is as large as the default takes the race detector 10 s
	for _, tt := range []struct {
		name  string
		bytes int
		want  string
		kept  int
	}{{"too big", limit + 100_000, "552 5.3.4", 0}, {"just small enough", limit - 100_000, "250", 1}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := start(t, t.TempDir(), func(c *Config) { c.MaxMessageBytes = limit })
			vm := f.add(t, "blog")
			c, _ := hello(t, f.addr)
			c.ask("MAIL FROM:<a@b.c>", "250")
			c.ask("RCPT TO:<x@blog."+domain+">", "250")
			c.ask("DATA", "354")
			block := strings.Repeat(strings.Repeat("x", 78)+"\r\n", 100)
			for sent := 0; sent < tt.bytes; sent += len(block) {
				c.send(block)
			}
			c.ask(".", tt.want)
			c.ask("NOOP", "250") // the session lives on
			all := f.list(t, vm)
			if len(all) != tt.kept || tt.kept > 0 && all[0].Bytes < int64(tt.bytes) {
				t.Errorf("%d messages: %+v", len(all), all)
			}
			leftNothing(t, filepath.Join(f.dir, "stage"))
		})
	}
}

func TestClientGoesAway(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	vm := f.add(t, "blog")
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<a@b.c>", "250")
	c.ask("RCPT TO:<x@blog."+domain+">", "250")
	c.ask("DATA", "354")
	c.send("Subject: half\r\n\r\nhalf a mess")
	gatewaytest.Must(t, c.Close())
	gatewaytest.WaitFor(t, "the failure is logged", func() bool { return f.log.Count("message not accepted") == 1 })
	if n := len(f.list(t, vm)); n != 0 {
		t.Errorf("%d messages", n)
	}
	leftNothing(t, filepath.Join(f.dir, "stage"))
}

func TestHangsUpOnHTTP(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /?MAIL HTTP/1.1\r\n\r\nEHLO x\r\nMAIL FROM:<a@b.c>\r\n"} {
		c := dial(t, f.addr)
		c.expect("220")
		c.send(request)
		c.expect("554 5.5.1")
		c.closed()
	}
}

func TestTooManyErrors(t *testing.T) {
	f := start(t, t.TempDir(), nil)
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<a@b.c>", "250")
	for range 20 {
		c.ask("RCPT TO:<x@nobody."+domain+">", "550")
	}
	c.ask("RCPT TO:<x@nobody."+domain+">", "421")
	c.closed()
}

// When the disk has only its reserve left, mail is put off before it is sent, nothing stays behind, and
// mail comes in again once there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := sandboxtest.SmallDisk(t, 4<<20) // the reserve is 5 %
	f := start(t, dir, nil)
	vm := f.add(t, "blog")
	send := func(size int, want string) {
		t.Helper()
		c, _ := hello(t, f.addr)
		c.ask("MAIL FROM:<a@b.c>", "250")
		c.ask("RCPT TO:<x@blog."+domain+">", "250")
		c.ask("DATA", "354")
		c.send("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", size/80))
		c.ask(".", want)
	}
	send(1<<20, "250")
	send(8<<20, "452 4.3.1 Insufficient system storage")
	leftNothing(t, filepath.Join(dir, "stage"))
	send(1<<20, "250")
	c, _ := hello(t, f.addr)
	c.ask("MAIL FROM:<a@b.c> SIZE=2000000", "452 4.3.1")
	c.ask("MAIL FROM:<a@b.c>", "250") // it may be a small one
	c.ask("RCPT TO:<x@blog."+domain+">", "250")
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	c.ask("DATA", "354")
	c.send("Subject: x\r\n\r\nx\r\n")
	c.ask(".", "452 4.3.1 Insufficient system storage")
	c.ask("MAIL FROM:<a@b.c>", "452 4.3.1 Insufficient system storage")
	box, err := f.store.Box(vm.ID)
	gatewaytest.Must(t, err)
	gatewaytest.Must(t, box.SetFlags([]uint32{1}, 1, 0)) // small records have room kept
	gatewaytest.Must(t, os.Remove(filler))
	send(100, "250")
	if n := len(f.list(t, vm)); n != 3 {
		t.Errorf("%d messages, want 3", n)
	}
}

// fill takes the last byte of a file system.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	gatewaytest.Must(t, err)
	defer file.Close()
	for size := 1 << 20; size > 0; {
		if _, err := file.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

func leftNothing(t *testing.T, dir string) {
	t.Helper()
	gatewaytest.WaitFor(t, "nothing is left in "+dir, func() bool { return len(files(t, dir)) == 0 })
}
