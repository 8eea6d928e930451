package smtpd

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"lodge/gateway/gatewaytest"
)

// Wherever a line without an end comes, memory does not grow, and the session ends.
func TestEndlessLine(t *testing.T) {
	h := serve(t, nil)
	for name, test := range map[string]struct {
		before string
		codes  []string
	}{
		"command":              {"", nil},
		"behind a chunk":       {envelope + "BDAT 2\r\nab", []string{"250", "250", "250"}},
		"behind refused BDAT":  {"BDAT 2\r\nab", []string{"503"}},
		"in DATA":              {envelope + "DATA\r\n", []string{"250", "250", "354"}},
		"in DATA, dots":        {envelope + "DATA\r\n.", []string{"250", "250", "354"}},
		"in a MAIL command":    {"MAIL FROM:<", nil},
		"in a BDAT command":    {envelope + "BDAT 5 LAST", []string{"250", "250"}},
		"behind STARTTLS":      {"STARTTLS\r\n", []string{"502"}},
		"behind DATA, refused": {"DATA\r\n", []string{"503"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(t)
			c.send(test.before)
			c.want(test.codes...)
			block := bytes.Repeat([]byte("x"), 1<<20)
			runtime.GC()
			before, peak := heap(), uint64(0)
			sent := 0
			for ; sent < 100; sent++ {
				if _, err := c.Write(block); err != nil {
					break
				}
				peak = max(peak, heap())
			}
			if sent == 100 {
				t.Error("100 MiB were read without a line end")
			}
			if peak > before+8<<20 {
				t.Errorf("%d MiB sent, heap %d → %d KiB", sent, before>>10, peak>>10)
			}
			h.wantNothing(t)
		})
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
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
		"RCPT refused":     {"MAIL FROM:<a@b.c>\r\nRCPT TO:<x@none.lodge.test>\r\n", "BDAT %d LAST", []string{"250", "550", "503"}, true},
		"MAIL refused":     {"MAIL FROM:<a@b.c> SIZE=2000000\r\nRCPT TO:<x@blog.lodge.test>\r\n", "BDAT %d LAST", []string{"552", "503", "503"}, true},
		"no MAIL":          {"", "BDAT %d LAST", []string{"503"}, true},
		"no RCPT":          {"MAIL FROM:<a@b.c>\r\n", "bdat %d", []string{"250", "503"}, true},
		"extra argument":   {envelope, "BDAT %d LAST EXTRA", []string{"250", "250", "501"}, true},
		"unknown argument": {envelope, "BDAT %d FIRST", []string{"250", "250", "501"}, true},
		"second chunk":     {envelope + "BDAT 1\r\nx", "BDAT %d LAST EXTRA", []string{"250", "250", "250", "501"}, true},
		"behind a failure": {envelope + "BDAT 1\r\n\n", "BDAT %d LAST", []string{"250", "250", "554", "503"}, true},
		"behind LAST":      {"MAIL FROM:<a@refused.example>\r\nBDAT 2 LAST\r\n\r\n", "BDAT %d LAST", []string{"550", "503", "503"}, true},
		"hexadecimal":      {envelope, "BDAT 0x%x LAST", []string{"250", "250", "501"}, false},
		"negative":         {envelope, "BDAT -%d LAST", []string{"250", "250", "501"}, false},
		"plus":             {envelope, "BDAT +%d LAST", []string{"250", "250", "501"}, false},
		"no size":          {envelope, "BDAT LAST %d", []string{"250", "250", "501"}, false},
		"nothing":          {envelope, "BDAT\r\n%d", []string{"250", "250", "501"}, false},
		"far too big":      {envelope, "BDAT 9999999999%d LAST", []string{"250", "250", "552"}, false},
		"beyond 64 bits":   {envelope, "BDAT 99999999999999999999%d LAST", []string{"250", "250", "552"}, false},
		"too long a line":  {envelope, "BDAT %d LAST" + strings.Repeat(" ", 5000), []string{"250", "250"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(t)
			c.send(test.before + fmt.Sprintf(test.bdat, n) + "\r\n" + forged + "NOOP\r\nQUIT\r\n")
			c.want(test.codes...)
			if test.lives {
				c.want("250", "221")
			}
			if rest := c.ended(); strings.Contains(rest, "queued") || strings.Contains(rest, "354") {
				t.Errorf("got %q", rest)
			}
			h.wantNothing(t)
		})
	}
}

// Blanks around a BDAT do not hide it.
func TestChunkAfterBlanks(t *testing.T) {
	for _, bdat := range []string{"BDAT\t%d LAST", " BDAT %d LAST", "bdat  %d  last ", "BDAT %d LAST\t"} {
		h := serve(t, nil)
		c := h.dial(t)
		c.send(envelope + fmt.Sprintf(bdat, len(forged)) + "\r\n" + forged + "QUIT\r\n")
		c.want("250", "250", "250", "221")
		if all := h.all(); len(all) != 1 || all[0].Body != forged {
			t.Errorf("%q: kept %+v", bdat, all)
		}
	}
}

// A chunk over the size limit is refused and skipped, and the session continues.
func TestChunkTooBig(t *testing.T) {
	h := serve(t, nil)
	c := h.dial(t)
	for range 2 {
		c.send(envelope + "BDAT 1500000 LAST\r\n" + strings.Repeat("x\r\n", 500_000) + "NOOP\r\n")
		c.want("250", "250", "552", "250")
	}
	c.send(envelope + "BDAT 600000\r\n" + strings.Repeat("x\r\n", 200_000))
	c.want("250", "250", "250")
	c.send("BDAT 600000 LAST\r\n" + strings.Repeat("x\r\n", 200_000) + "NOOP\r\n")
	c.want("552", "250")
	h.wantNothing(t)
}

// What clients with CHUNKING and PIPELINING send: the envelope and chunks in one piece, and what looks
// like a command inside a chunk and inside DATA.
func TestPipelinedChunks(t *testing.T) {
	h := serve(t, nil)
	c := h.dial(t)
	body := "Subject: x\r\n\r\nDATA\r\nBDAT 5000\r\n" + strings.Repeat("x", 60_000) + "\r\n.\r\n..\r\n" + forged
	half := len(body) / 2
	chunks := fmt.Sprintf("BDAT %d\r\n%sBDAT %d\r\n%sBDAT 0 LAST\r\n", half, body[:half], len(body)-half, body[half:])
	data := "DATA\r\nSubject: y\r\n\r\nBDAT 100000 LAST\r\nDATA\r\n.\r\n"
	c.send(envelope + chunks + "RSET\r\n" + envelope + data + envelope + chunks + "QUIT\r\n")
	c.want("250", "250", "250", "250", "250", "250", "250", "250", "354", "250", "250", "250", "250", "250", "250", "221")
	c.ended()
	all := h.all()
	if len(all) != 3 {
		t.Fatalf("%d messages, want 3", len(all))
	}
	for i, want := range []string{body, "Subject: y\r\n\r\nBDAT 100000 LAST\r\nDATA\r\n", body} {
		if all[i].Body != want {
			t.Errorf("message %d has %d bytes, not the %d that were sent", i, len(all[i].Body), len(want))
		}
	}
}

// A message in chunks is the same wherever the chunks are cut.
func TestChunkBorders(t *testing.T) {
	h := serve(t, nil)
	c := h.dial(t)
	body := "Received: x\r\n\r\n.\r\n..\r\nab\r\n"
	for i := range len(body) + 1 {
		c.send(envelope + fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", i, body[:i], len(body)-i, body[i:]))
		c.want("250", "250", "250", "250")
	}
	for i, m := range h.all() {
		if m.Body != body {
			t.Errorf("cut at %d: %q", i, m.Body)
		}
	}
}

// RSET, EHLO and QUIT between chunks give the message up, and the session takes the next one.
func TestChunksGivenUp(t *testing.T) {
	h := serve(t, nil)
	c := h.dial(t)
	for _, reset := range []string{"RSET", "EHLO x", "HELO x"} {
		c.send(envelope + "BDAT 5\r\nabcde" + reset + "\r\nBDAT 0 LAST\r\n")
		c.want("250", "250", "250", "250", "503")
	}
	h.wantNothing(t)
	c.send(envelope + "BDAT 5\r\nabcdeMAIL FROM:<a@b.c>\r\nRCPT TO:<x@blog.lodge.test>\r\n")
	c.want("250", "250", "250", "503", "503")
	c.send("BDAT 2 LAST\r\n\r\nNOOP\r\n")
	c.want("250", "250")
	if all := h.all(); len(all) != 1 || all[0].Body != "abcde\r\n" {
		t.Errorf("kept %+v", all)
	}
	c.send(envelope + "BDAT 5\r\nabcdeQUIT\r\n")
	c.want("250", "250", "250", "221")
	c.ended()
	c = h.dial(t)
	c.send(envelope + "BDAT 5\r\nabcdeDATA\r\n")
	c.want("250", "250", "250", "503 5.5.1 The message came by BDAT")
}

// DATA that is refused ends the session, if the client has sent a message behind it without waiting.
func TestRefusedDataWithMessage(t *testing.T) {
	h := serve(t, nil)
	for name, before := range map[string]string{
		"no MAIL": "", "no RCPT": "MAIL FROM:<a@b.c>\r\n", "RCPT refused": "MAIL FROM:<a@b.c>\r\nRCPT TO:<x@none.lodge.test>\r\n",
	} {
		for _, data := range []string{"DATA", "DATA x", " data", "DATA\n"} {
			t.Run(name+" "+data, func(t *testing.T) {
				c := h.dial(t)
				c.send(before + data + "\r\n" + forged)
				if rest := c.ended(); strings.Contains(rest, "queued") || strings.Contains(rest, "354") {
					t.Errorf("got %q", rest)
				}
				h.wantNothing(t)
			})
		}
	}
	h.begins(t)
}

// begins checks that a refused DATA alone leaves the session as it was.
func (h *host) begins(t *testing.T) {
	t.Helper()
	c := h.dial(t)
	c.send("DATA\r\n")
	c.want("503")
	c.send(envelope + "DATA x\r\n")
	c.want("250", "250", "501")
	c.send("DATA\r\n")
	c.want("354")
	c.send(".\r\n")
	c.want("250")
}

// A message that the client cuts off is none.
func TestCutMessage(t *testing.T) {
	for name, begin := range map[string]string{
		"DATA": "DATA\r\nSubject: half\r\n\r\n", "BDAT": "BDAT 100 LAST\r\nSubject: half\r\n\r\n", "between chunks": "BDAT 2\r\nxx",
		"at the dot": "DATA\r\nx\r\n.", "at the CR": "DATA\r\nx\r\n.\r",
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, nil)
			c := h.dial(t)
			c.send(envelope + begin)
			c.want("250", "250")
			gatewaytest.Must(t, c.Close())
			gatewaytest.WaitFor(t, "the message is aborted", func() bool {
				h.mu.Lock()
				defer h.mu.Unlock()
				return len(h.aborted) == 1
			})
			h.wantNothing(t)
		})
	}
}

// A message that takes too long ends the connection: what still comes of it is never commands.
func TestMessageOverTime(t *testing.T) {
	for name, begin := range map[string]string{"DATA": "DATA\r\nx", "BDAT": "BDAT 100000 LAST\r\nx", "between chunks": "BDAT 2\r\nxx"} {
		for end, change := range map[string]func(*Limits){
			"data": func(l *Limits) { l.Data = 50 * time.Millisecond },
			"idle": func(l *Limits) { l.Idle = 50 * time.Millisecond },
		} {
			t.Run(name+" "+end, func(t *testing.T) {
				h := serve(t, func(c *Config) { change(&c.Limits) })
				c := h.dial(t)
				c.send(envelope + begin)
				line, err := "", error(nil)
				for !strings.Contains(line, " 4.4.2 ") && err == nil {
					line, err = c.answer()
				}
				if err != nil {
					t.Fatalf("got %v, want a 4.4.2", err)
				}
				_, _ = io.WriteString(c, "\r\n.\r\n"+forged) // closed maybe
				if rest := c.ended(); strings.Contains(rest, "queued") {
					t.Errorf("got %q", rest)
				}
				h.wantNothing(t)
			})
		}
	}
}

// What a client has sent behind the command that ends its session is not looked at.
func TestNothingRunsBehindTheEnd(t *testing.T) {
	h := serve(t, nil)
	for name, test := range map[string]struct{ before, want string }{
		"QUIT":             {"QUIT\r\n", "221"},
		"too many errors":  {strings.Repeat("RCPT TO:<x@none.lodge.test>\r\n", maxErrors+1), "421"},
		"too long a line":  {strings.Repeat("x", maxCommandBytes+1) + "\r\n", "500 5.5.6"},
		"bare LF in DATA":  {"RCPT TO:<x@blog.lodge.test>\r\nDATA\r\nx\n.\n\r\n.\r\n", "554 5.6.0"},
		"QUIT, then MAIL":  {"QUIT\r\nMAIL FROM:<a@b.c>\r\n", "221"},
		"a refused DATA":   {"DATA\r\n", "503"},
		"an unknown BDAT":  {"BDAT x\r\n", "501"},
		"twice the limit":  {"RCPT TO:<x@blog.lodge.test>\r\nDATA\r\n" + strings.Repeat("x\r\n", 700_000) + "\r\n.\r\n", "552"},
		"BDAT, far beyond": {"BDAT 3000000\r\n", "552"},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(t)
			c.send("MAIL FROM:<a@b.c>\r\n" + test.before + forged) // in one piece: it is there when DATA is refused
			rest := c.ended()
			if !strings.Contains(rest, "\r\n"+test.want) || strings.Contains(rest, "queued") {
				t.Errorf("got %q", rest)
			}
			h.wantNothing(t)
		})
	}
}
