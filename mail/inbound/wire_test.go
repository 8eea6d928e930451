package inbound

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
	"lodge/mail/mailbox"
)

const (
	envelope = "MAIL FROM:<a@b.c>\r\nRCPT TO:<x@blog.lodge.test>\r\n"
	// forged is what a client hides in a chunk for a server that takes a refused chunk for
	// commands.
	forged = "RSET\r\nMAIL FROM:<ceo@bank.example>\r\nRCPT TO:<x@blog.lodge.test>\r\nDATA\r\nSubject: forged\r\n\r\nforged\r\n.\r\n"
)

// host is an SMTP server on loopback with one VM, blog.
type host struct {
	t    testing.TB
	addr string
	box  *mailbox.Box
	log  gatewaytest.Log
}

func serve(t testing.TB, change func(*Config)) *host {
	t.Helper()
	h := &host{t: t}
	vm := gateway.VM{Identity: gateway.Identity{ID: gateway.NewID(), Name: "blog"}, Desired: gateway.Running}
	store, err := mailbox.Open(t.TempDir(), h.log.Logger())
	gatewaytest.Must(t, err)
	h.box, err = store.Box(vm.ID)
	gatewaytest.Must(t, err)
	config := Config{
		Domain: "lodge.test", Directory: gatewaytest.NewDirectory(t, new(gatewaytest.Records), vm), Store: store,
		MaxMessageBytes: 1 << 20, Limits: DefaultLimits(), Logger: h.log.Logger(),
	}
	if change != nil {
		change(&config)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	gatewaytest.Must(t, err)
	h.addr = l.Addr().String()
	server := New(config)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Shutdown(t.Context())
		serving.Wait()
		store.Close()
	})
	return h
}

// client is a raw connection after EHLO.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (h *host) dial() *client {
	h.t.Helper()
	c, err := new(net.Dialer).DialContext(h.t.Context(), "tcp", h.addr)
	gatewaytest.Must(h.t, err)
	h.t.Cleanup(func() { _ = c.Close() })
	gatewaytest.Must(h.t, c.SetDeadline(time.Now().Add(time.Minute)))
	cl := &client{c, h.t, bufio.NewReader(c)}
	cl.want("220")
	cl.send("EHLO client.example\r\n")
	cl.want("250")
	return cl
}

func (c *client) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	gatewaytest.Must(c.t, err)
}

// want expects one reply for each code.
func (c *client) want(codes ...string) {
	c.t.Helper()
	for _, code := range codes {
		line, err := c.r.ReadString('\n')
		for err == nil && len(line) > 3 && line[3] == '-' {
			line, err = c.r.ReadString('\n')
		}
		if err != nil || !strings.HasPrefix(line, code) {
			c.t.Fatalf("got %q, %v; want %s", line, err, code)
		}
	}
}

// ended reads up to the end of the connection, and returns what came.
func (c *client) ended() string {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if os.IsTimeout(err) {
		c.t.Fatal("the connection is still open")
	}
	return string(rest)
}

func (h *host) messages() int { return len(h.box.Snapshot().Entries) }

// Behind a chunk that is not the last, a line without an end must not grow memory.
func TestEndlessLineBehindChunk(t *testing.T) {
	h := serve(t, nil)
	c := h.dial()
	c.send(envelope + "BDAT 2\r\nab")
	c.want("250", "250", "250")
	before, peak := heap(), uint64(0)
	block := strings.Repeat("x", 1<<20)
	sent := 0
	for ; sent < 100; sent++ {
		if _, err := io.WriteString(c, block); err != nil {
			break
		}
		peak = max(peak, heap())
	}
	t.Logf("%d MiB sent, heap %d → %d KiB", sent, before>>10, peak>>10)
	if sent == 100 {
		t.Error("100 MiB were read without a line end")
	}
	if peak > before+8<<20 {
		t.Errorf("the heap grew from %d to %d KiB", before>>10, peak>>10)
	}
	if n := h.messages(); n != 0 {
		t.Errorf("%d messages", n)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// A line has a limit wherever it comes: as a command, in DATA, between chunks.
func TestLongLines(t *testing.T) {
	h := serve(t, nil)
	for name, test := range map[string]struct {
		before string
		codes  []string
		bytes  int
		want   string
	}{
		"command":        {"", nil, 5000, "500"},
		"DATA":           {envelope + "DATA\r\n", []string{"250", "250", "354"}, 70_000, "451"},
		"between chunks": {envelope + "BDAT 2\r\nab", []string{"250", "250", "250"}, 5000, "500"},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial()
			c.t = t
			c.send(test.before)
			c.want(test.codes...)
			c.send(strings.Repeat("x", test.bytes))
			c.want(test.want)
			c.ended()
		})
	}
}

// The bytes of a chunk whose BDAT is refused are never commands.
func TestRefusedChunkIsSkipped(t *testing.T) {
	h := serve(t, nil)
	n := len(forged)
	for name, test := range map[string]struct {
		before string
		bdat   string
		codes  []string // of before and of BDAT
		lives  bool     // the session continues behind the chunk
	}{
		"RCPT refused":     {"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@none.lodge.test>\r\n", "BDAT %d LAST", []string{"250", "550", "502"}, true},
		"MAIL refused":     {"MAIL FROM:<a@b.c> SIZE=2000000\r\nRCPT TO:<x@blog.lodge.test>\r\n", "BDAT %d LAST", []string{"552", "502", "502"}, true},
		"no MAIL":          {"", "BDAT %d LAST", []string{"502"}, true},
		"no RCPT":          {"MAIL FROM:<a@b.c>\r\n", "bdat %d", []string{"250", "502"}, true},
		"extra argument":   {envelope, "BDAT %d LAST EXTRA", []string{"250", "250", "501"}, true},
		"unknown argument": {envelope, "BDAT %d FIRST", []string{"250", "250", "501"}, true},
		"tab":              {envelope, "BDAT\t%d LAST", []string{"250", "250", "501"}, true},
		"space before":     {envelope, " BDAT %d LAST", []string{"250", "250", "501"}, true},
		"hexadecimal":      {envelope, "BDAT 0x%x LAST", []string{"250", "250", "501"}, false},
		"negative":         {envelope, "BDAT -%d LAST", []string{"250", "250", "501"}, false},
		"far too big":      {envelope, "BDAT 9999999999%d LAST", []string{"250", "250", "501"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial()
			c.t = t
			c.send(test.before + fmt.Sprintf(test.bdat, n) + "\r\n" + forged + "NOOP\r\nQUIT\r\n")
			c.want(test.codes...)
			if test.lives {
				c.want("250", "221")
			}
			if rest := c.ended(); strings.Contains(rest, "queued") {
				t.Errorf("got %q", rest)
			}
			if n := h.messages(); n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// A chunk over the size limit is refused and skipped, and the session continues.
func TestChunkTooBig(t *testing.T) {
	h := serve(t, nil)
	c := h.dial()
	for range 2 {
		c.send(envelope + "BDAT 1500000 LAST\r\n" + strings.Repeat("x", 1_500_000) + "NOOP\r\n")
		c.want("250", "250", "552", "250")
	}
	c.send(envelope + "BDAT 600000\r\n" + strings.Repeat("x", 600_000))
	c.want("250", "250", "250")
	c.send("BDAT 600000 LAST\r\n" + strings.Repeat("x", 600_000) + "NOOP\r\n")
	c.want("552", "250")
	if n := h.messages(); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// What clients with CHUNKING and PIPELINING send: the envelope and chunks in one piece, lines
// longer than any limit on lines, and what looks like a command inside a chunk and inside DATA.
func TestPipelinedChunks(t *testing.T) {
	h := serve(t, nil)
	c := h.dial()
	body := "Subject: x\r\n\r\nDATA\r\nBDAT 5000\r\n" + strings.Repeat("x", 200_000) + "\r\n.\r\n" + forged
	half := len(body) / 2
	chunks := fmt.Sprintf("BDAT %d\r\n%sBDAT %d\r\n%sBDAT 0 LAST\r\n", half, body[:half], len(body)-half, body[half:])
	data := "DATA\r\nSubject: y\r\n\r\nBDAT 100000 LAST\r\nDATA\r\n.\r\n"
	c.send(envelope + chunks + "RSET\r\n" + envelope + data + envelope + chunks + "QUIT\r\n")
	c.want("250", "250", "250", "250", "250", "250", "250", "250", "354", "250", "250", "250", "250", "250", "250", "221")
	c.ended()
	entries := h.box.Snapshot().Entries
	if len(entries) != 3 {
		t.Fatalf("%d messages, want 3; %s", len(entries), &h.log)
	}
	for i, want := range []string{body, "Subject: y\r\n\r\nBDAT 100000 LAST\r\nDATA\r\n", body} {
		content, err := h.box.Open(entries[i].UID)
		gatewaytest.Must(t, err)
		got, err := io.ReadAll(content)
		gatewaytest.Must(t, err)
		gatewaytest.Must(t, content.Close())
		if !strings.HasSuffix(string(got), "\r\n"+want) {
			t.Errorf("message %d has %d bytes, which do not end in the %d that were sent", i, len(got), len(want))
		}
	}
}

// A chunk that the client cuts off is no message.
func TestCutChunkIsNotAccepted(t *testing.T) {
	h := serve(t, nil)
	c := h.dial()
	c.send(envelope + "BDAT 100 LAST\r\nSubject: half\r\n\r\n")
	c.want("250", "250")
	gatewaytest.Must(t, c.Close())
	gatewaytest.Eventually(t, func() error {
		if h.log.Count("message not accepted")+h.log.Count("message accepted") == 0 {
			return fmt.Errorf("nothing in the log yet: %s", &h.log)
		}
		return nil
	})
	if n := h.messages(); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// A message that takes too long ends the connection: what still comes of it is never commands.
func TestMessageOverTime(t *testing.T) {
	h := serve(t, func(c *Config) { c.Limits.Data = 50 * time.Millisecond })
	c := h.dial()
	c.send(envelope + "DATA\r\nSubject: x\r\n\r\n")
	c.want("250", "250", "354", "451")
	_, _ = io.WriteString(c, forged) // closed maybe
	if rest := c.ended(); strings.Contains(rest, "queued") {
		t.Errorf("got %q", rest)
	}
	if n := h.messages(); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// What a client has sent behind the command that ends its session is not looked at.
func TestNothingRunsBehindTheEnd(t *testing.T) {
	h := serve(t, nil)
	for name, test := range map[string]struct{ before, want string }{
		"QUIT":            {"QUIT\r\n", "221"},
		"too many errors": {strings.Repeat("RCPT TO:<x@none.lodge.test>\r\n", maxErrors+1), "421"},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial()
			c.t = t
			before := "MAIL FROM:<a@b.c>\r\n"
			c.send(before + test.before + forged)
			rest := c.ended()
			if !strings.Contains(rest, "\r\n"+test.want) || strings.Contains(rest, "354") {
				t.Errorf("got %q", rest)
			}
		})
	}
	if n := h.messages(); n != 0 || h.log.Count("panic") > 0 {
		t.Errorf("%d messages; %s", n, &h.log)
	}
}
