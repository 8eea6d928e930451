package mail

import (
	"strings"
	"testing"

	"lodge/gateway"
	"lodge/gateway/gatewaytest"
)

// A VM's quota ends a message at RCPT if the size was announced, else at its end; nothing is stored in part.
func TestQuota(t *testing.T) {
	t.Parallel()
	f := start(t, t.TempDir(), nil)
	small, large := f.add(t, "small"), f.add(t, "large")
	_, err := f.directory.Update(t.Context(), small.ID, func(m *gateway.VM) error { m.Mail.QuotaBytes = gateway.MinMailQuota; return nil })
	gatewaytest.Must(t, err)
	body := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", 600_000/80) + "."
	c, _ := hello(t, f.addr)
	begin := func(mail string, rcpts ...string) {
		t.Helper()
		c.ask("MAIL FROM:<a@b.c>"+mail, "250")
		for _, r := range rcpts {
			name, want, _ := strings.Cut(r, " ")
			c.ask("RCPT TO:<x@"+name+"."+domain+">", want)
		}
	}
	count := func(when string, inSmall, inLarge int) {
		t.Helper()
		if s, l := len(f.list(t, small)), len(f.list(t, large)); s != inSmall || l != inLarge {
			t.Errorf("%s: %d and %d messages, want %d and %d", when, s, l, inSmall, inLarge)
		}
	}
	begin("", "small 250")
	c.ask("DATA", "354")
	c.ask(body, "250")
	begin(" SIZE=600000", "small 452 4.2.2 Mailbox full", "large 250")
	c.ask("DATA", "354")
	c.ask(body, "250") // to the other one
	count("announced", 1, 1)
	begin("", "small 250", "large 250")
	c.ask("DATA", "354")
	c.ask(body, "452 4.2.2 Mailbox full") // to none
	count("not announced", 1, 1)
	begin("", "small 250")
	c.ask("DATA", "354")
	c.ask("Subject: x\r\n\r\nsmall\r\n.", "250")
	count("a small one", 2, 1)
}
