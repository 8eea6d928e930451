package smtpd

import (
	"fmt"
	"strings"
	"testing"
)

// The message ends at CRLF dot CRLF alone. All else that some server takes for its end is either part
// of a message that is refused, with what follows, or part of one that is kept as it is.
func TestEndOfData(t *testing.T) {
	const evil = "MAIL FROM:<evil@b.c>\r\nRCPT TO:<x@blog.lodge.test>\r\nDATA\r\nevil\r\n"
	for name, end := range map[string]string{
		"LF dot LF": "\n.\n", "LF dot CRLF": "\n.\r\n", "CRLF dot LF": "\r\n.\n", "CR dot CR": "\r.\r", "CR dot CRLF": "\r.\r\n", "CRLF dot CR": "\r\n.\r",
		"LF dot CR": "\n.\r", "CR dot LF": "\r.\n", "CRCRLF dot CRLF": "\r\r\n.\r\n", "CRLF dot CRCRLF": "\r\n.\r\r\n", "NUL": "\r\n.\x00\r\n",
		"CRLF NUL dot CRLF": "\r\n\x00.\r\n", "dot space": "\r\n. \r\n", "dot dot": "\r\n..\r\n", "no line end before": "x.\r\n", "LFCR": "\n\r.\n\r",
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, nil)
			c := h.dial(t)
			c.send(envelope + "DATA\r\n")
			c.want("250", "250", "354")
			c.send("Subject: x\r\n\r\nbody" + end + evil + ".\r\n")
			c.send("QUIT\r\n")
			rest := c.ended()
			all := h.all()
			switch ended := strings.HasPrefix(rest, "250"); {
			case ended != (len(all) == 1) || !ended && !strings.HasPrefix(rest, "554 5.6.0"):
				t.Errorf("kept %+v, replied %q", all, rest)
			case ended && (all[0].Envelope.From.Local == "evil" || !strings.HasSuffix(all[0].Body, evil)):
				t.Errorf("kept %+v", all)
			case strings.Contains(rest, "354"):
				t.Errorf("the message was run as commands: %q", rest)
			}
		})
	}
}

// Leading dots are removed, one of each line that has any, and no other byte.
func TestDots(t *testing.T) {
	h := serve(t, nil)
	c := h.dial(t)
	for sent, want := range map[string]string{
		"": "", "x\r\n": "x\r\n", "..\r\n": ".\r\n", ".x\r\n": "x\r\n", "x.\r\n": "x.\r\n", "...\r\n\r\n": "..\r\n\r\n", "\r\n.. .\r\n": "\r\n. .\r\n",
		strings.Repeat("y", bufferBytes-1) + "\r\n..\r\n": strings.Repeat("y", bufferBytes-1) + "\r\n.\r\n",
		strings.Repeat("y", bufferBytes) + ".\r\n..\r\n":  strings.Repeat("y", bufferBytes) + ".\r\n.\r\n",
	} {
		c.send(envelope + "DATA\r\n")
		c.want("250", "250", "354")
		c.send(sent + ".\r\n")
		c.want("250")
		all := h.all()
		if got := all[len(all)-1].Body; got != want {
			t.Errorf("of %.40q came %.40q", sent, got)
		}
	}
}

// What a message must not have refuses it, at any place; DATA and BDAT agree, and the session
// continues unless a line end is in doubt.
func TestBadMessages(t *testing.T) {
	h := serve(t, nil)
	header := strings.Repeat("Received: x\r\n", maxReceived)
	for name, test := range map[string]struct {
		body, want string
		closes     bool // by DATA
	}{
		"bare LF":                 {"Subject: x\nX: y\r\n\r\n", "554 5.6.0 Bare CR or LF", true},
		"bare CR":                 {"x\ry\r\n", "554 5.6.0 Bare CR or LF", true},
		"CR CR LF":                {"x\r\r\n", "554 5.6.0 Bare CR or LF", true},
		"dot, bare CR":            {".\rx\r\n", "554 5.6.0 Bare CR or LF", true},
		"LF first":                {"\nx\r\n", "554 5.6.0 Bare CR or LF", true},
		"bare CR at a border":     {strings.Repeat("x", bufferBytes-1) + "\rx\r\n", "554 5.6.0 Bare CR or LF", true},
		"bare LF at a border":     {strings.Repeat("x", bufferBytes-1) + "\nx\r\n", "554 5.6.0 Bare CR or LF", true},
		"CRLF at a border":        {strings.Repeat("x", bufferBytes-1) + "\r\nx\r\n", "250", false},
		"line of 64 KiB":          {strings.Repeat("x", maxLineBytes-2) + "\r\n", "250", false},
		"line above 64 KiB":       {strings.Repeat("x", maxLineBytes-1) + "\r\n", "554 5.6.0 Line too long", false},
		"at the limit":            {strings.Repeat("12\r\n", 1<<18), "250", false},
		"above the limit":         {strings.Repeat("12\r\n", 1<<18) + "\r\n", "552 5.3.4", false},
		"50 Received":             {header + "\r\n", "250", false},
		"51 Received":             {header + "rEceived: x\r\n\r\n", "554 5.4.6 Too many hops", false},
		"51 Received, in lengths": {header + "Received: " + strings.Repeat("x", bufferBytes) + "\r\n\r\n", "554 5.4.6 Too many hops", false},
		"Received in the body":    {header + "\r\nReceived: x\r\n", "250", false},
		"Received-SPF":            {header + "Received-SPF: x\r\nX-Received: y\r\n\r\n", "250", false},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial(t)
			c.send(envelope + fmt.Sprintf("BDAT %d LAST\r\n%sNOOP\r\n", len(test.body), test.body))
			c.want("250", "250", test.want, "250")
			half := len(test.body) / 2
			c.send(envelope + fmt.Sprintf("BDAT %d\r\n%s", half, test.body[:half]))
			c.want("250", "250")
			if line, err := c.answer(); err != nil || !strings.HasPrefix(line, "250") && !strings.HasPrefix(line, test.want) {
				t.Fatalf("got %q, %v", line, err)
			} else if strings.HasPrefix(line, "250") {
				c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(test.body)-half, test.body[half:]))
				c.want(test.want)
			}
			c.send("RSET\r\n" + envelope + "DATA\r\n")
			c.want("250", "250", "250", "354")
			c.send(strings.ReplaceAll("\r\n"+test.body, "\r\n.", "\r\n..")[2:] + ".\r\n")
			c.want(test.want)
			if test.closes {
				if rest := c.ended(); rest != "" {
					t.Errorf("got %q", rest)
				}
				return
			}
			c.send("NOOP\r\n")
			c.want("250")
		})
	}
}
