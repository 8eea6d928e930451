package mail

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"lodge/gateway/gatewaytest"
	"lodge/mail/smtpd"
	"lodge/mail/submit"
)

// A VM that sends too much stops itself alone, and learns when it may go on.
func TestSendRates(t *testing.T) {
	t.Parallel()
	rates := submit.DefaultRates()
	rates.Messages = smtpd.Rate{PerSecond: 0.01, Burst: 2}
	rates.Recipients = smtpd.Rate{PerSecond: 0.01, Burst: 5}
	f, _, _ := sending(t, func(c *Config) { c.sendRates = &rates })
	blog, shop := f.add(t, "blog"), f.add(t, "shop")
	c, _ := hello(t, f.tap(t, blog))
	c.ask("MAIL FROM:<a@localhost>", "250")
	for i := range 5 {
		c.ask(fmt.Sprintf("RCPT TO:<x%d@localhost>", i), "250")
	}
	c.ask("RCPT TO:<y@localhost>", "450 4.7.1 Too many recipients from this VM, try again in 100 s")
	c.ask("RSET", "250")
	c.ask("MAIL FROM:<a@localhost>", "250")
	c.ask("RSET", "250")
	c.ask("MAIL FROM:<a@localhost>", "450 4.7.1 Too many messages from this VM, try again in 100 s")
	if got := f.reply(t, f.tap(t, shop), "a@localhost", "x@blog.lodge.localhost"); !strings.HasPrefix(got, "250") {
		t.Errorf("another VM: %q", got)
	}
}

// 10,000 recipients are refused from the 101st on, and the message still arrives.
func TestVMWithManyRecipients(t *testing.T) {
	t.Parallel()
	f, _, _ := sending(t, nil)
	blog := f.add(t, "blog")
	c, _ := hello(t, f.tap(t, blog))
	c.ask("MAIL FROM:<a@localhost>", "250")
	const all = 10_000
	go func() {
		var b bytes.Buffer
		for i := range all {
			fmt.Fprintf(&b, "RCPT TO:<x%d@localhost>\r\n", i)
		}
		_, _ = c.Write(b.Bytes()) // the replies show what arrived
	}()
	count := map[string]int{}
	for range all {
		got, err := c.answer()
		gatewaytest.Must(t, err)
		count[got[:9]]++
	}
	if count["250 2.1.5"] != 100 || count["452 4.5.3"] != all-100 {
		t.Errorf("%v", count)
	}
	c.ask("DATA", "354")
	c.ask("x\r\n.", "250")
	if n := len(f.list(t, blog)); n != 100 {
		t.Errorf("%d messages", n)
	}
}

// What programs send that were told nothing but where: swaks, and Python's smtplib.
func TestRealClientsSend(t *testing.T) {
	t.Parallel()
	f, _, out := sending(t, nil)
	blog := f.add(t, "blog")
	host, port, err := net.SplitHostPort(f.tap(t, blog))
	gatewaytest.Must(t, err)
	const script = `import smtplib, sys
from email.message import EmailMessage
m = EmailMessage()
m["From"], m["To"], m["Bcc"], m["Subject"] = "app@localhost", "ann@example.org", "root@localhost", "Grüße"
m.set_content("Grüße\n.\nend\n")
m.add_attachment(bytes(range(256)) * 1000, maintype="application", subtype="octet-stream", filename="x.bin")
with smtplib.SMTP(sys.argv[1], int(sys.argv[2])) as s:
    s.send_message(m)
`
	for name, args := range map[string][]string{
		"swaks":  {"--server", host, "--port", port, "--helo", "blog", "--from", "root@blog", "--to", owner + ",root@localhost", "--header", "Subject: by swaks", "--timeout", "30"},
		"python": {"-c", script, host, port},
	} {
		program := name
		if name == "python" {
			program = "python3"
		}
		if text, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		sent := out.last(t)
		if !slices.Equal(sent.To, []string{owner}) || !strings.HasSuffix(sent.From, "@blog.lodge.localhost") || strings.Contains(sent.text, "\r\nBcc:") {
			t.Errorf("%s: %+v, %.1000q", name, sent.Message, sent.text)
		}
	}
	if n := len(f.list(t, blog)); n != 2 {
		t.Errorf("%d messages in the VM's own mailbox", n)
	}
}
